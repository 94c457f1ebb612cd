"""Runs that lie in the same folder and were scored before this one: what they cost and gained."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from persianmind.common.checksum import read_checked
from persianmind.common.errors import DamagedFileError
from persianmind.energy.show import kwh_text
from persianmind.report.languages import target
from persianmind.report.read import RunFiles
from persianmind.report.values import number
from persianmind.report.view import Cell, Table, figure, plain
from persianmind.run.folder import RunFolder
from persianmind.run.records import BASE_STAGE, RunResults
from persianmind.run.scores import scores_by_stage

MAX_RUNS = 6
HEADER = ("run", "energy", "measured", "first score", "last score", "tokens")


def earlier_runs(run: RunFiles) -> Table | None:
    """The newest finished runs beside this one that are older than it; None where there is none."""
    folder = run.folder.path.resolve()
    own = _written_s(folder)
    others = [path for path in folder.parent.iterdir() if path != folder and path.name[0] != "."]
    dated = [(at, path) for path in others if (at := _written_s(path)) is not None]
    older = [(at, path) for at, path in dated if own is None or at < own]
    code, name = target(run).code, target(run).name
    lines = [_line(path, code) for _, path in sorted(older, reverse=True)[: 2 * MAX_RUNS]]
    body = [line for line in lines if line is not None][:MAX_RUNS]
    header = [title.replace("score", f"score, {name}") for title in HEADER]
    return Table(header, body) if body else None


def _written_s(folder: Path) -> float | None:
    try:
        return RunFolder(folder).results.stat().st_mtime
    except OSError:
        return None


def _line(folder: Path, code: str) -> list[Cell] | None:
    """One finished run; None for what is none, or is damaged."""
    try:
        results = RunResults.model_validate(read_checked(RunFolder(folder).results))
    except (OSError, DamagedFileError, ValidationError):
        return None
    account = results.energy or {}
    kwh, ratio = number(account.get("kwh")), number(account.get("measured_ratio"))
    if not results.finished or kwh is None:
        return None
    scores = [found[code] for found in scores_by_stage(results).values() if code in found]
    before = next((one for one in scores if one.stage == BASE_STAGE), None)
    after = scores[-1] if scores and scores[-1].stage != BASE_STAGE else None
    per_million = account.get("per_million_tokens")
    tokens = number(per_million.get("count")) if isinstance(per_million, dict) else None
    return [
        plain(folder.name),
        plain(kwh_text(kwh)),
        figure(None if ratio is None else 100 * ratio, 0, "%"),
        figure(None if before is None else number(before.bits_per_byte)),
        figure(None if after is None else number(after.bits_per_byte)),
        figure(tokens, 0),
    ]
