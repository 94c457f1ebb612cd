"""Several runs on one page: quality beside energy, tokens and time, and the settings that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from persianmind import __version__
from persianmind.common.atomic import write_text
from persianmind.common.checksum import read_checked
from persianmind.common.errors import DamagedFileError, UsageError
from persianmind.common.template import load_template
from persianmind.energy.show import co2_text, energy_text
from persianmind.report.charts import Chart, Series, draw_wide
from persianmind.report.curves import TONES, held_out_points
from persianmind.report.drawing import Drawing
from persianmind.report.font import font_face
from persianmind.report.gains import Gain, gains
from persianmind.report.languages import languages, target
from persianmind.report.page import POLICY, run_name
from persianmind.report.read import RunFiles, read_run
from persianmind.report.series import Point
from persianmind.report.values import number, scalar_text, section
from persianmind.report.verdict import time_spent_text
from persianmind.report.view import GAP, Cell, Table, count, plain
from persianmind.run.folder import RunFolder
from persianmind.text.heldout import INDEX

UNSET = "–"
COLUMNS = ("energy", "CO₂eq", "tokens", "training time")
MAX_RUNS = len(TONES)


def write_comparison(paths: Sequence[Path], out: Path) -> Path:
    """Writes one page of 2 to 8 runs to `out`, whole or not at all, and returns its path.

    Raises:
        RunFolderError: one of them is no run folder.
        UsageError: they are too many.
    """
    if len(paths) > MAX_RUNS:
        raise UsageError(f"report compares at most {MAX_RUNS} runs, these are {len(paths)}: leave some out")
    folders = [RunFolder(path) for path in paths]
    for folder in folders:
        folder.require()
    write_text(out, render_comparison([read_run(folder) for folder in folders]))
    return out


def render_comparison(runs: Sequence[RunFiles]) -> str:
    """The page as text; the languages are those of the first run."""
    names = _names(runs)
    shown = languages(runs[0])
    return load_template(Path(__file__).parent, "templates/compare.html.j2").render(
        policy=POLICY,
        font_face=font_face(shown),
        names=names,
        target=target(runs[0]),
        comparison=Table(
            ["run", *(f"{one.name}, bits/byte" for one in shown), *COLUMNS],
            [_line(name, run, [one.code for one in shown]) for name, run in zip(names, runs, strict=True)],
            numeric=False,
        ),
        warnings=list(_warnings(runs, [one.code for one in shown])),
        chart=_chart(names, runs),
        differences=setting_differences(names, runs),
        gaps=[f"{name}: {gap}" for name, run in zip(names, runs, strict=True) for gap in run.gaps],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """The runs' folders by name, by path where two are called alike."""
    names = [run.folder.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder.path) for run in runs]


def _line(name: str, run: RunFiles, codes: Sequence[str]) -> list[Cell]:
    found = {gain.language.code: gain for gain in gains(run)}
    state = "finished" if run.results.finished else f"not finished, {len(run.steps):,} steps"
    scores = [_score(found.get(code)) for code in codes]
    account = run.account
    tokens = number(sum(step.tokens for step in run.steps))
    seconds = number(sum(value for step in run.steps if (value := number(step.seconds)) is not None))
    return [
        Cell(name, origin=f"{run_name(run)}, {state}"),
        *scores,
        GAP if account is None else plain(energy_text(account)),
        GAP if account is None else plain(co2_text(account)),
        count(tokens or None),
        plain(time_spent_text(seconds)) if seconds else GAP,
    ]


def _score(gain: Gain | None) -> Cell:
    if gain is None:
        return GAP
    sure = "beyond" if gain.is_clear else "within"
    return Cell(gain.path.removesuffix(" bits per byte"), origin=f"{gain.big}, {sure} the intervals")


def _warnings(runs: Sequence[RunFiles], codes: Sequence[str]) -> Iterator[str]:
    """Why the columns may not compare."""
    for code in codes:
        if len({_held_out_hash(run, code) for run in runs}) > 1:
            yield f"The held-out text ({code}) is not the same in all runs: their scores do not compare."
    if len({scalar_text(run.recipe.get("base", UNSET)) for run in runs}) > 1:
        yield "The runs start from different base models."


def _held_out_hash(run: RunFiles, code: str) -> str:
    try:
        index = read_checked(run.folder.heldout / INDEX)
    except (OSError, DamagedFileError):
        return ""
    return str(section(section(index.get("languages")).get(code)).get("hash", ""))


def _chart(names: Sequence[str], runs: Sequence[RunFiles]) -> list[Drawing]:
    """Held-out scores of the target language by what had been trained on."""
    language = target(runs[0])
    series = [
        Series(name, _by_tokens(run, language.code), tone, dotted=True)
        for name, run, tone in zip(names, runs, TONES, strict=False)
    ]
    label = f"Held-out {language.name} by tokens trained on"
    return draw_wide(Chart(label, series, x_name="million tokens", y_name="bits per byte"))


def _by_tokens(run: RunFiles, code: str) -> list[Point]:
    trained_on = accumulate(step.tokens for step in run.steps)
    tokens = dict(zip((step.step for step in run.steps), trained_on, strict=True))
    pairs = ((number(tokens.get(int(step), 0)), bits) for step, bits in held_out_points(run, code))
    return [(trained / 1e6, bits) for trained, bits in pairs if trained is not None]


def setting_differences(names: Sequence[str], runs: Sequence[RunFiles]) -> Table | None:
    """The keys of the recipes that are not alike in all runs, by their dotted names; None where all are.

    A source or a stage that a run has not is one line, not one for each of its keys.
    """
    recipes = [dict(_flat(run.recipe)) for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    differing = [key for key in keys if len({recipe.get(key, UNSET) for recipe in recipes}) > 1]
    shown = dict.fromkeys(_lacking_part(key, recipes) for key in differing)
    body = [[plain(key), *(plain(_setting(recipe, key)) for recipe in recipes)] for key in shown]
    return Table(["setting", *names], body, numeric=False) if body else None


def _lacking_part(key: str, recipes: Sequence[Mapping[str, str]]) -> str:
    """The shortest beginning of a dotted key under which some recipe has nothing; the key where all have."""
    parts = key.split(".")
    for end in range(1, len(parts)):
        part = ".".join(parts[:end])
        if not all(_has_below(recipe, part) for recipe in recipes):
            return part
    return key


def _has_below(recipe: Mapping[str, str], part: str) -> bool:
    return any(key.startswith(f"{part}.") for key in recipe)


def _setting(recipe: Mapping[str, str], key: str) -> str:
    return recipe.get(key) or ("there" if _has_below(recipe, key) else UNSET)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value as text) of everything below; items of a list by their name, else their number."""
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = [(str(section(item).get("name", index)), item) for index, item in enumerate(value)]
    else:
        yield path, UNSET if value is None else str(value)  # as where the key is not there
        return
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else key)
