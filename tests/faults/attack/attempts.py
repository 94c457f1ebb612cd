"""One call of the training command under attack: with forked ranks, or through the real launcher."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Protocol

import psutil

from persianmind.common.poll import wait_until
from tests.faults.attack.line import Observer, processes_of
from tests.faults.attack.schedule import Kill
from tests.faults.fleet import Fleet
from tests.support.launch import ROOT, Launched, command

LOOK_S = 0.002
END_WITHIN_S = 90.0


class Attempt(Protocol):
    """What the attack needs of a call that is under way."""

    def processes(self) -> dict[str, psutil.Process]: ...

    def has_ended(self) -> bool: ...

    def finish(self) -> Launched: ...


class ForkedAttempt:
    """Ranks forked by the fleet: a quarter of the launcher's time."""

    def __init__(self, fleet: Fleet, recipe: Path, run: Path, *overrides: str, ranks: int = 2) -> None:
        self._fleet, self._run = fleet, run
        fleet.start(run, *overrides, flags=("--recipe", str(recipe)), ranks=ranks, timeout_s=300)

    def processes(self) -> dict[str, psutil.Process]:
        return processes_of(self._run, self._fleet.pid)

    def has_ended(self) -> bool:
        return self._fleet.has_answered()

    def finish(self) -> Launched:
        return self._fleet.finish()


class LaunchedAttempt:
    """Through `deepspeed`, as a user starts it."""

    def __init__(self, recipe: Path, run: Path) -> None:
        self._run, self._log = run, run.with_suffix(".log")
        self._started_s = time.monotonic()
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command(["--recipe", str(recipe), "--output", str(run)], ranks=2),
                env={**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def processes(self) -> dict[str, psutil.Process]:
        return processes_of(self._run, None)

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def finish(self) -> Launched:
        """Ends when the ranks have, too, which no launcher may be left to wait for."""
        code = self._process.wait(300)
        assert wait_until(lambda: not self.processes(), timeout_s=END_WITHIN_S), (
            f"{sorted(self.processes())} live on without a launcher: {self._text}"
        )
        return Launched(code, self._text, time.monotonic() - self._started_s, self._run)

    @property
    def _text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def reach(attempt: Attempt, observer: Observer, kill: Kill, seconds: dict[str, float]) -> bool:
    """Waits for the moment of a kill; False where the attempt ended before, or is past it.

    seconds: what each phase takes when nothing disturbs it.
    """
    last = max(observer.stage_ends.values())
    phase = "start" if kill.phase == "resume" else kill.phase

    def there() -> bool:
        return (
            attempt.has_ended()
            or observer.is_past(phase)
            or (observer.steps() >= int(kill.progress * last) and observer.phase() == phase)
        )

    assert wait_until(there, timeout_s=300, interval_s=LOOK_S), f"{kill}: never came"
    if observer.is_past(phase):
        return False
    wait_until(attempt.has_ended, timeout_s=kill.delay * seconds[phase], interval_s=LOOK_S)
    return not attempt.has_ended()


def phase_seconds(attempt: Attempt, observer: Observer) -> dict[str, float]:
    """Watches an attempt to its end: by phase, how long it took when it came; the mean of several times."""
    spans: dict[str, list[float]] = {}
    phase, since_s = observer.phase(), time.monotonic()
    while not attempt.has_ended():
        now, now_s = observer.phase(), time.monotonic()
        if now != phase:
            spans.setdefault(phase, []).append(now_s - since_s)
            phase, since_s = now, now_s
        time.sleep(LOOK_S)
    return {phase: sum(each) / len(each) for phase, each in spans.items()}
