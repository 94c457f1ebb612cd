"""What a run ends with: the table, what was gained and lost, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from persianmind.energy.show import co2_text, energy_text
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.records import BASE_STAGE, RunResults
from persianmind.run.scores import headlines, scores_by_stage

WIDTH = 30  # of a language's column: two of them fit a terminal of 80
NOTABLE_LOSS = 0.01  # of the base's bits per byte, beyond which something should be done


def summary_lines(results: RunResults) -> list[str]:
    """The table a run ends with: bits per byte of every stage with their intervals, the suites' first
    metrics, data that changed on the way, energy and CO2."""
    languages = list(dict.fromkeys(score.language for score in results.evaluation))
    header = "".join(f"{f'{name} bits/byte (95%)':>{WIDTH}}" for name in languages)
    lines = [f"{'stage':<14}{header}"]
    for stage, scores in scores_by_stage(results).items():
        lines.append(f"{stage:<14}" + "".join(_cells(scores.get(language)) for language in languages))
    if results.evaluation:
        first = {score.language: score for score in reversed(results.evaluation)}
        told = (f"{code} {first[code].n_documents:,}, {first[code].n_bytes:,} bytes" for code in languages)
        lines.append(f"held-out documents: {'; '.join(told)}")
    lines += _suite_lines(results)
    lines += [
        f"sources.{one.source}: other {one.what} from step {one.step + 1} on" for one in results.data_changes
    ]
    if results.best is not None:
        best = results.best
        lines.append(f"best {best.metric}: {best.value:.4f} at step {best.step}, its checkpoint is kept")
    account = results.energy or {}
    if account.get("kwh") is not None:
        lines.append(f"energy: {energy_text(account)}; CO2eq: {co2_text(account)}")
        lines += [f"energy, not complete: {problem}" for problem in account.get("problems", [])]
    return lines


def _suite_lines(results: RunResults) -> Iterator[str]:
    """The last stage's metrics beside the base's."""
    first = {
        (one.suite, one.task, str(one.settings.get("perturbation"))): one
        for one in headlines(results.results)
        if one.stage == "base"
    }
    stages = [one.stage for one in results.results if one.step is None]
    for one in headlines(results.results):
        if not stages or one.stage != stages[-1] or one.step is not None or one.value is None:
            continue
        base = first.get((one.suite, one.task, str(one.settings.get("perturbation"))))
        before = "" if base is None or base.value is None else f" (base {base.value:.4g})"
        interval = "" if one.ci_low is None else f" [{one.ci_low:.4g}, {one.ci_high:.4g}]"
        yield f"{one.suite}/{one.task}: {one.metric} {one.value:.4g}{interval}{before}, {one.n} items"


def _cells(score: EvaluationResult | None) -> str:
    if score is None:
        return f"{'-':>{WIDTH}}"
    interval = "" if score.ci_low is None else f" ({score.ci_low:.4f} to {score.ci_high:.4f})"
    return f"{f'{score.bits_per_byte:.4f}{interval}':>{WIDTH}}"


def closing_lines(results: RunResults, run: str) -> Iterator[str]:
    """What was gained and what was lost in each language, and what to do next. run: its folder."""
    by_stage = scores_by_stage(results)
    base = by_stage.pop(BASE_STAGE, {})
    last = list(by_stage.values())[-1] if by_stage else {}
    is_lost = False
    for language, score in last.items():
        if (before := base.get(language)) is None:
            continue
        change = score.bits_per_byte / before.bits_per_byte - 1
        word = "gained" if change < 0 else "lost"
        noise = ", within the noise of so little held-out text" if _overlap(before, score) else ""
        yield f"{word}: {language} {abs(change):.1%} {'fewer' if change < 0 else 'more'} bits per byte{noise}"
        is_lost |= change > NOTABLE_LOSS
    if is_lost:
        yield (
            "to lose less: more of that language in every stage or a lower train.learning_rate, with another "
            f"--output; or a smaller adapter scale, which `persianmind export {run} --sweep` measures"
        )
    if results.export is not None:
        yield f"next: persianmind chat {run}; persianmind evaluate {run}; docs/serving.md"


def _overlap(one: EvaluationResult, other: EvaluationResult) -> bool:
    if one.ci_low is None or one.ci_high is None or other.ci_low is None or other.ci_high is None:
        return False
    return one.ci_low <= other.ci_high and other.ci_low <= one.ci_high
