"""Runs of the tiny recipe by the real launcher: `deepspeed launcher/train.py --recipe tiny`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from persianmind.common.errors import PersianMindError
from persianmind.common.log import print_text
from persianmind.common.paths import PROJECT_ROOT
from persianmind.common.poll import wait_until
from persianmind.engine.registry import backend
from persianmind.gpucheck.fanout import unused_port
from persianmind.gpucheck.findings import NotApplicableError
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_steps

TRAIN = PROJECT_ROOT / "launcher" / "train.py"
POLL_S = 0.05
SHOWN_LINES = 30


class LaunchFailedError(PersianMindError):
    """A run of the check did not end as it should."""


@dataclass(frozen=True, slots=True)
class EndedLaunch:
    """A launcher call that has ended. text: all that launcher and ranks printed."""

    code: int
    text: str
    seconds: float

    def require_success(self, what: str) -> None:
        """Prints the end of the text, for the part's log, where the call failed.

        Raises:
            LaunchFailedError: it did.
        """
        if self.code:
            print_text("\n".join(self.text.splitlines()[-SHOWN_LINES:]))
            said = [line for line in self.text.splitlines() if line.startswith("persianmind: error:")]
            raise LaunchFailedError(
                f"{what} ended with status {self.code}: {(said or ['no line of ours'])[0]}"
            )


def launcher_command(run: Path, overrides: Sequence[str], cpu_ranks: int | None) -> list[str]:
    """cpu_ranks: number of ranks on the CPU, 0 without the launcher; None: DeepSpeed counts the GPUs.

    Raises:
        NotApplicableError: launcher/train.py is not here: the package was installed without its checkout.
    """
    if not TRAIN.is_file():
        raise NotApplicableError(f"{TRAIN} is not here: run the check from a checkout of the project")
    launcher = [sys.executable]
    if cpu_ranks != 0:
        ranks = [] if cpu_ranks is None else ["--num_accelerators", str(cpu_ranks)]
        deepspeed = Path(sys.executable).parent / "deepspeed"
        launcher = [str(deepspeed), *ranks, "--master_port", str(unused_port())]
    engine = ["--deepspeed", str(backend().default_config)]
    return [*launcher, str(TRAIN), *engine, "--recipe", "tiny", "--output", str(run), *overrides]


def launch_tiny(
    run: Path, overrides: Sequence[str] = (), *, cpu_ranks: int | None, kill_at_step: int | None = None
) -> EndedLaunch:
    """Runs it to its end; or kills everything with SIGKILL once `kill_at_step` steps are logged.

    Raises:
        LaunchFailedError: it ended before it could be killed.
    """
    started_s = time.monotonic()
    log = run.with_name(f"{run.name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            launcher_command(run, overrides, cpu_ranks),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=PROJECT_ROOT,
        )
        if kill_at_step is not None:
            wait_until(
                lambda: process.poll() is not None or last_logged_step(run) >= kill_at_step, interval_s=POLL_S
            )
            _kill_all(process)
        code = process.wait()
    ended = EndedLaunch(code, log.read_text(encoding="utf-8", errors="replace"), time.monotonic() - started_s)
    if kill_at_step is not None and code >= 0:
        ended.require_success("the run to be killed")
        raise LaunchFailedError(f"the run was over before step {kill_at_step} could be seen")
    return ended


def last_logged_step(run: Path) -> int:
    """The newest step in metrics.jsonl, 0 before the first."""
    return max((record.step for record in read_steps(RunFolder(run))), default=0)


def exact_losses(run: Path) -> dict[int, str]:
    """Step -> loss, every bit of it."""
    return {record.step: record.loss_hex for record in read_steps(RunFolder(run))}


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """The launcher first, so that it does not end its ranks by itself, then everything below it."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    process.kill()
    for one in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(below, timeout=10)
