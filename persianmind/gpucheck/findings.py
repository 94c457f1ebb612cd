"""What a part has found so far, on disk after every line, so that a time limit or a crash costs only the
rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from persianmind.common.atomic import write_json
from persianmind.common.errors import PersianMindError


class NotApplicableError(PersianMindError):
    """A part has nothing to measure on this machine; the message says why. It counts as skipped."""


class FindingsState(StrEnum):
    """How far the process of a part got."""

    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


class Findings:
    """The figures, checks and summary of one part (or of one rank of it) in a JSON file.

    A check is something that must hold; one that does not makes the part fail, and the part goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = FindingsState.RUNNING
        self.reason = ""
        self.summary = ""
        self.values: dict[str, Any] = {}
        self.checks: list[dict[str, Any]] = []
        self._write()

    def record(self, **values: Any) -> None:
        """Adds figures by name; units stand in the names."""
        self.values |= values
        self._write()

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Adds a row to the list `name`."""
        self.values.setdefault(name, []).append(dict(row))
        self._write()

    def expect(self, name: str, ok: bool, **numbers: Any) -> None:
        """Adds a check. numbers: what was seen, and the limit it was held against."""
        self.checks.append({"name": name, "ok": bool(ok), **numbers})
        self._write()

    def summarise(self, line: str) -> None:
        """The part in one line, for the table."""
        self.summary = line
        self._write()

    def end(self, state: FindingsState, reason: str = "") -> None:
        """The last line."""
        self.state, self.reason = state, " ".join(reason.split())
        self._write()

    def _write(self) -> None:
        write_json(
            self.path,
            {
                "state": self.state,
                "reason": self.reason,
                "summary": self.summary,
                "values": plain_json(self.values),
                "checks": plain_json(self.checks),
            },
        )


def plain_json(value: Any) -> Any:
    """The value as JSON knows it: a number that is not finite becomes its name, a path its text."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)
