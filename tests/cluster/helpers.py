"""A real Ray on this machine for tests: heads of our own on loopback, submit.py as users call it, kills."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from persianmind.common.poll import wait_until
from tests.support.launch import BIN, ROOT, free_port

SUBMIT = ROOT / "cluster" / "submit.py"
WORKER = "ray::RayTrainWo"  # the process name is cut at 15 characters
# The self-tests before step 1 have tests of their own; here every attempt would do them again.
TINY = ("--recipe", "tiny")
# One thread per rank: two spin against each other when the machine is busy.
FAST = ("train.self_tests=false", "train.threads_per_rank=1")
# 36 steps in the first stage, long enough to be hit by a kill; 50 in all.
LONGER = "stages.0.tokens=36864"
LONGER_STEPS = 50


def environment(**more: str) -> dict[str, str]:
    """Of every process here: CPU, loopback, no usage reports, the venv's own `python`."""
    return {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # this machine alone: everything on 127.0.0.1
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        **more,
    }


class Submitted(subprocess.Popen[bytes]):
    """submit.py in the background; where it ends too early, a test shows the end of its log."""

    log: Path


def start(
    *arguments: str, env: dict[str, str] | None = None, log: Path, prefix: tuple[str, ...] = ()
) -> Submitted:
    """submit.py in the background, its output in `log`."""
    with log.open("wb") as out:
        process = Submitted(
            [*prefix, sys.executable, str(SUBMIT), *arguments],
            cwd=ROOT,
            env=env or environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    process.log = log
    return process


def submit(*arguments: str, env: dict[str, str] | None = None, timeout_s: float = 240) -> tuple[int, str]:
    """submit.py to its end: (exit code, everything it printed)."""
    done = subprocess.run(
        [sys.executable, str(SUBMIT), *arguments],
        cwd=ROOT,
        env=env or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, done.stdout


def errors_in(text: str) -> list[str]:
    """The lines our own error reporting printed."""
    return [line for line in text.splitlines() if line.startswith("persianmind: error:")]


def metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, a dict a line; a line being written now is left out."""
    path = run / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def assert_complete(run: Path, steps: int) -> None:
    """Finished, each step logged once and in order, no sample left out or repeated."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["finished"] is True
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    seen: dict[str, int] = {}
    for line in lines:
        assert line["first_sample"] == seen.get(line["stage"], 0)
        seen[line["stage"]] = line["first_sample"] + line["samples"]


def wait_for(
    what: Callable[[], Any], timeout_s: float, process: subprocess.Popen[bytes] | None = None
) -> Any:
    """The first true value of `what`; fails when time is over, or when `process` ends before."""

    def is_running() -> None:
        if process is not None and process.poll() is not None:
            said = process.log.read_text(errors="replace")[-4000:] if isinstance(process, Submitted) else ""
            pytest.fail(f"ended early with {process.returncode}: {said}")

    found = wait_until(what, timeout_s=timeout_s, interval_s=0.02, while_waiting=is_running)
    assert found, f"nothing after {timeout_s} s"
    return found


def step_of(run: Path) -> int:
    """The last step logged."""
    lines = metrics(run)
    return int(lines[-1]["step"]) if lines else 0


def train_workers(root_pid: int) -> list[psutil.Process]:
    """Ray Train workers that descend from a process of ours."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(root_pid).children(recursive=True)
        return [one for one in family if _named(one, WORKER)]
    return []


def _named(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and process.name().startswith(name)
    return False


def kill_worker(root_pid: int) -> int:
    """kill -9 of the youngest training worker; returns its pid."""
    victim = max(train_workers(root_pid), key=lambda one: one.create_time())
    victim.kill()
    return victim.pid


def end_family(process: subprocess.Popen[bytes]) -> None:
    """Ends a process of ours with everything below it, by pid."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)
    process.wait()


@dataclass
class Head:
    """A head node with token authentication, on loopback, with files of its own."""

    cpus: int = 3
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pm-ray-", dir="/tmp")))
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def env(self, **more: str) -> dict[str, str]:
        """For clients of this head."""
        return environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=self.token, **more)

    def start(self) -> None:
        """`ray start --head --block`, and waits until the dashboard answers."""
        self.port = self.port or free_port()
        gcs = free_port()
        command = ["start", "--head", "--block", f"--port={gcs}", f"--num-cpus={self.cpus}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}", "--disable-usage-stats"]
        command += ["--object-store-memory=100000000", f"--temp-dir={self.folder}/r"]
        with (self.folder / "head.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "ray"), *command],
                env=self.env(RAY_ADDRESS=f"127.0.0.1:{gcs}"),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        wait_for(self._answers, 60, self.process)

    def _answers(self) -> bool:
        from urllib.error import URLError
        from urllib.request import Request, urlopen

        headers = {"Authorization": f"Bearer {self.token}"}
        with contextlib.suppress(URLError, OSError):
            urlopen(Request(f"{self.address}/api/jobs/", headers=headers), timeout=5).read()
            return True
        time.sleep(0.2)
        return False

    def kill(self) -> None:
        """As a power cut: all its processes at once."""
        if self.process is not None:
            end_family(self.process)
            self.process = None


@contextlib.contextmanager
def running_head(cpus: int = 3) -> Iterator[Head]:
    """A head for the block."""
    head = Head(cpus)
    try:
        head.start()
        yield head
    finally:
        head.kill()
        shutil.rmtree(head.folder, ignore_errors=True)
