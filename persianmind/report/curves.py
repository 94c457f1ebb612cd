"""The curves of training: loss by language and source with the held-out scores on it, and what else is
recorded of each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from persianmind.report.charts import Chart, Series, draw, draw_wide
from persianmind.report.drawing import Drawing
from persianmind.report.languages import languages
from persianmind.report.read import RunFiles
from persianmind.report.series import Point
from persianmind.report.values import number, quotient
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.records import BASE_STAGE, StepRecord

MARK_CHARACTERS = 16  # of a stage's name beside its line in a chart
# Of what is no language: the languages' own two colours come last (style.css).
TONES = (
    "t-third", "t-plum", "t-olive", "t-soft", "t-good", "t-spent", "t-target", "t-english",
)  # fmt: skip
GIB = 2.0**30

Curve = tuple[str, str, str, Callable[[StepRecord], float | None]]  # title, unit, colour, value of a step
CURVES: tuple[Curve, ...] = (
    ("Loss, all sources mixed", "nats per token", "t-plum", lambda step: step.loss),
    ("Tokens per second", "tokens/s", "t-third", lambda step: step.tokens_per_s),
    ("Model FLOPs utilisation", "percent", "t-good", lambda step: quotient(step.mfu, 1, 100)),
    ("Memory, highest so far", "GiB of rank 0", "t-soft", lambda step: _memory_gib(step)),
    ("Gradient norm", "", "t-olive", lambda step: step.grad_norm),
    ("Learning rate of the adapters", "", "t-soft", lambda step: step.learning_rate),
    ("Learning rate of the embeddings", "", "t-third", lambda step: step.embedding_learning_rate),
)


def loss_by_language(run: RunFiles) -> list[Drawing]:
    """Training loss of each language as lines, held-out scores as dots; bits per byte, so that languages and
    vocabularies compare."""
    series = []
    for language in languages(run):
        trained = _points(run.steps, partial(_of_language, code=language.code))
        held_out = held_out_points(run, language.code)
        series += [
            Series(f"{language.name}, training", trained, f"t-{language.role}"),
            Series(f"{language.name}, held out", held_out, f"t-{language.role}", dots=True),
        ]
    return draw_wide(_chart(run, "Loss by language", series))


def loss_by_source(run: RunFiles) -> list[Drawing]:
    """Training loss of each source, bits per byte; [] where there is one alone."""
    names = dict.fromkeys(name for step in run.steps for name in step.bits_per_byte_by_source)
    by_source = {name: _points(run.steps, partial(_of_source, name=name)) for name in names}
    if len(by_source) < 2:
        return []
    often = sorted(by_source, key=lambda name: -len(by_source[name]))
    series = [Series(name, by_source[name], tone) for name, tone in zip(often, TONES, strict=False)]
    rest = f", without {', '.join(often[len(TONES) :])}" if len(often) > len(TONES) else ""
    return draw_wide(_chart(run, f"Loss by source{rest}", series))


def held_out_points(run: RunFiles, code: str) -> list[Point]:
    """(step, bits per byte) of every score of a language, the base's at step 0."""
    last_steps = {step.stage: step.step for step in run.steps}
    found: dict[float, float] = {}
    for score in [*run.results.within_stages, *run.results.evaluation]:
        step, bits = number(_step_of(score, last_steps)), number(score.bits_per_byte)
        if score.language == code and step is not None and bits is not None:
            found[step] = bits
    return sorted(found.items())


def _step_of(score: EvaluationResult, last_steps: dict[str, int]) -> int | None:
    if score.step is not None:
        return score.step
    return 0 if score.stage == BASE_STAGE else last_steps.get(score.stage)


def small_charts(run: RunFiles) -> Iterator[tuple[str, Drawing]]:
    """(title, chart) of what else each step records; nothing of what no step has."""
    for title, unit, tone, value_of in CURVES:
        curve = Series(title, _points(run.steps, value_of), tone)
        from_zero = not title.startswith("Loss")
        chart = Chart(title, [curve], y_name=unit, marks=stage_marks(run.steps), from_zero=from_zero)
        if drawing := draw(chart):
            yield title, drawing


def stage_marks(steps: list[StepRecord]) -> list[tuple[float, str]]:
    """(step, name) where each stage begins."""
    marks: list[tuple[float, str]] = []
    before: str | None = None
    for step in steps:
        if step.stage != before and (at := number(step.step)) is not None:
            before = step.stage
            marks.append((at, before[:MARK_CHARACTERS]))
    return marks


def _points(steps: list[StepRecord], value_of: Callable[[StepRecord], float | None]) -> list[Point]:
    pairs = ((number(step.step), number(value_of(step))) for step in steps)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _chart(run: RunFiles, label: str, series: list[Series]) -> Chart:
    return Chart(label, series, y_name="bits per byte", marks=stage_marks(run.steps))


def _of_language(step: StepRecord, code: str) -> float | None:
    return step.bits_per_byte_by_language.get(code)


def _of_source(step: StepRecord, name: str) -> float | None:
    return step.bits_per_byte_by_source.get(name)


def _memory_gib(step: StepRecord) -> float | None:
    used = step.peak_device_memory_bytes
    return quotient(number(step.peak_memory_bytes if used is None else used), GIB)
