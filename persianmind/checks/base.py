"""What a check is: a name, and a small function that looks at one subject and says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from persianmind.common.errors import MachineError, PersianMindError
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder


class Level(StrEnum):
    """How a check came out; `WARN`: a run can start all the same."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What checks look at.

    recipe: its precision is resolved; None: the machine alone is asked about. folder: the run's, or the one
    that runs are put in. ranks: number of ranks on this machine.
    """

    recipe: Recipe | None
    engine_config: Path
    folder: RunFolder
    ranks: int = 1

    @property
    def wanted(self) -> Recipe:
        """The recipe, in checks that are made for one alone."""
        if self.recipe is None:
            raise ValueError("this check is of a recipe, and there is none")
        return self.recipe


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line. detail: a fact, and where the level is not ok what to do about it."""

    name: str
    level: Level
    detail: str

    @classmethod
    def ok(cls, name: str, detail: str) -> Self:
        """Nothing to do."""
        return cls(name, Level.OK, detail)

    @classmethod
    def warn(cls, name: str, detail: str) -> Self:
        """A run starts, and will be slower or worse than it could."""
        return cls(name, Level.WARN, detail)

    @classmethod
    def fail(cls, name: str, detail: str) -> Self:
        """A run would not get through."""
        return cls(name, Level.FAIL, detail)

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


Look = Callable[[CheckContext], Iterable[CheckResult]]


@dataclass(frozen=True, slots=True)
class Check:
    """One subject. Keeps nothing it writes.

    look: what it finds; a PersianMindError that it raises is a finding too, with the check's name. fatal:
    whether a start makes the check as well, and stops where it fails.
    """

    name: str
    look: Look
    fatal: bool = False


def one_fact(name: str, state: Callable[[CheckContext], str]) -> Check:
    """A fatal check of one line: the fact that `state` returns, or the line with the fix that it raises."""
    return Check(name, lambda context: [CheckResult.ok(name, state(context))], fatal=True)


def run_all(checks: Iterable[Check], context: CheckContext) -> list[CheckResult]:
    """Every finding; no check stops the others."""
    return [finding for check in checks for finding in _run(check, context)]


def stop_at_first(checks: Iterable[Check], context: CheckContext) -> None:
    """Makes the fatal checks in order.

    Raises:
        PersianMindError: the first thing that is wrong.
    """
    for check in checks:
        for finding in check.look(context) if check.fatal else ():
            if finding.level is Level.FAIL:
                raise MachineError(finding.detail)


def _run(check: Check, context: CheckContext) -> Iterator[CheckResult]:
    try:
        yield from check.look(context)
    except PersianMindError as error:
        level = Level.FAIL if check.fatal else Level.WARN
        yield CheckResult(check.name, level, " ".join(str(error).split()))
