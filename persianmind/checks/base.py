"""What a check is: a name, and a function that finds a fact or raises the line with the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from persianmind.common.errors import PersianMindError


class Level(StrEnum):
    """How a check came out; `WARN`: a run can start all the same."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that can be wrong. Writes nothing.

    look: returns what it found, for people, or raises a PersianMindError.
    fatal: whether a run must not start when it fails.
    """

    name: str
    look: Callable[[], str]
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check came out. detail: a fact where it is ok, else the line with the fix."""

    name: str
    level: Level
    detail: str

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def run_all(checks: Iterable[Check]) -> list[CheckResult]:
    """Every result; no check stops the others."""
    return [_run(check) for check in checks]


def stop_at_first(checks: Iterable[Check]) -> None:
    """Runs the fatal checks in order.

    Raises:
        PersianMindError: what the first of them that fails raises.
    """
    for check in checks:
        if check.fatal:
            check.look()


def _run(check: Check) -> CheckResult:
    try:
        return CheckResult(check.name, Level.OK, check.look())
    except PersianMindError as error:
        level = Level.FAIL if check.fatal else Level.WARN
        return CheckResult(check.name, level, " ".join(str(error).split()))
