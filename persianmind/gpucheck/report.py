"""runs/gpu-check/report.json: whole at every moment, merged after every part.

docs/gpus.md describes its keys.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from persianmind.common.atomic import write_json

FORMAT = 1
PACKAGES = (
    "persianmind",
    "torch",
    "deepspeed",
    "transformers",
    "peft",
    "bitsandbytes",
    "nvidia-ml-py",
    "flash-attn",
)


class PartStatus(StrEnum):
    """How a part came out; a skipped one had nothing to measure on this machine."""

    WAITING = "waiting"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    SKIPPED = "skipped"


GOOD = (PartStatus.PASSED, PartStatus.SKIPPED)
OPEN = (PartStatus.WAITING, PartStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """One part of the report. reason: why it is neither passed nor waiting. log: the end of what its process
    printed, where it went wrong."""

    status: PartStatus = PartStatus.WAITING
    reason: str = ""
    seconds: float = 0.0
    summary: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Mapping[str, Any]] = ()
    log: Sequence[str] = ()


class CheckReport:
    """The report of one check; every change is on disk when the call returns."""

    def __init__(self, path: Path, names: Sequence[str], *, small: bool) -> None:
        self.path = path
        self.small = small
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.parts: dict[str, PartOutcome] = {name: PartOutcome() for name in names}
        self.seconds = 0.0
        self._write()

    @property
    def finished(self) -> bool:
        """Whether every part has come to its end."""
        return all(outcome.status not in OPEN for outcome in self.parts.values())

    @property
    def ok(self) -> bool:
        """Whether every part passed, or had nothing to measure here."""
        return all(outcome.status in GOOD for outcome in self.parts.values())

    def begin(self, name: str) -> None:
        """The part runs now."""
        self.parts[name] = PartOutcome(PartStatus.RUNNING)
        self._write()

    def end(self, name: str, outcome: PartOutcome) -> None:
        """The part is done. Its seconds count for the whole."""
        self.parts[name] = outcome
        self.seconds += outcome.seconds
        self._write()

    def as_json(self) -> dict[str, Any]:
        """What the file holds."""
        return {
            "format": FORMAT,
            "small": self.small,
            "started": self.started,
            "seconds": round(self.seconds, 2),
            "finished": self.finished,
            "ok": self.finished and self.ok,
            "python": sys.version.split()[0],
            "versions": {name: _version(name) for name in PACKAGES},
            "parts": {name: asdict(outcome) for name, outcome in self.parts.items()},
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(part, status, seconds, what it came to) for people."""
        return [
            (name, one.status, f"{one.seconds:.0f}", one.reason or one.summary)
            for name, one in self.parts.items()
        ]

    def _write(self) -> None:
        write_json(self.path, self.as_json())


def _version(package: str) -> str | None:
    """From the package's metadata: nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
