"""The process that builds sources while training runs (service.py starts it).

    python -m persianmind.data.build.worker '{"plan": "runs/demo/builder.json"}'

Sources take turns: the one that training would run out of first goes on. Readers see whole shards alone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from persianmind.common.checksum import read_checked
from persianmind.common.child import die_with_parent, parent_is_gone, read_setting
from persianmind.common.console import run_guarded
from persianmind.common.errors import PersianMindError
from persianmind.common.log import configure_logging, print_traceback
from persianmind.common.progress import work_done
from persianmind.data.build.builder import build_steps
from persianmind.data.build.job import BuildProgress
from persianmind.data.build.priority import BuildOrder
from persianmind.data.build.source import SourceJob
from persianmind.data.read.incremental import write_failure

NICENESS = 10
LINE_INTERVAL_S = 10.0
REPORT_INTERVAL_S = 1.0
logger = logging.getLogger(__name__)


def build_all(
    jobs: Sequence[SourceJob],
    order: BuildOrder,
    on_step: Callable[[BuildProgress], None],
    on_failure: Callable[[str, str], None] = lambda name, text: None,
) -> bool:
    """Builds every source into its folder; whether all of them could be built.

    One that fails leaves its error in its folder and does not stop the others.

    Args:
        on_step: called after every batch of records.
        on_failure: called with the name of a packing and why it failed.
    """
    by_name = {job.packing: job for job in jobs}
    running = {name: build_steps(job) for name, job in by_name.items()}
    sequences = dict.fromkeys(by_name, 0)
    whole = True
    while running:
        name = min(running, key=lambda one: order.priority(one, sequences[one]))
        try:
            step = next(running[name], None)
        except Exception as error:
            whole = False
            del running[name]
            text = _describe(by_name[name], error)
            on_failure(name, text)
            with suppress(OSError):  # no room even for this: the parent has been told
                write_failure(by_name[name].out, text)
            continue
        if step is None:
            del running[name]
            continue
        sequences[name] = step.shards * by_name[name].data.sequences_per_shard
        on_step(step)
    return whole


def _describe(job: SourceJob, error: Exception) -> str:
    """The line readers raise; what is no error of ours also leaves its traceback in the log."""
    if isinstance(error, PersianMindError):
        logger.info("%s: %s", job.packing, error)
        return str(error)
    with suppress(OSError):  # the log may lie on the disk that is full
        print_traceback()
    what = f"{type(error).__name__}: {error}"
    return f"sources.{job.name}: building {job.packing} ended with {what}; see builder.log"


class _Monitor:
    """After every batch: a line now and then, and an end where the parent is gone."""

    def __init__(self, setting: Mapping[str, Any]) -> None:
        self._setting = dict(setting)
        self._next_line_s = 0.0

    def __call__(self, step: BuildProgress) -> None:
        if parent_is_gone(self._setting):
            sys.exit("the process that asked for this build is gone")
        if time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_INTERVAL_S
            logger.info(
                "%s: %s records read, %s tokens, %d shards, %.0f s",
                step.source,
                f"{step.records_read:,}",
                f"{step.tokens:,}",
                step.shards,
                step.elapsed_s,
            )


class _Reports:
    """What the parent is told over a pipe, a line of JSON each time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        threading.Thread(target=self._report_work, name="reports", daemon=True).start()

    def failed(self, name: str, text: str) -> None:
        """The `on_failure` of `build_all`."""
        self._send({"failed": {name: " ".join(text.split())}})

    def _report_work(self) -> None:
        """The count when it has changed: a main thread that stands still is not covered up."""
        reported = 0
        while True:
            if (now := work_done()) != reported:
                reported = now
                self._send({"work_done": now})
            time.sleep(REPORT_INTERVAL_S)

    def _send(self, report: Mapping[str, Any]) -> None:
        with self._lock, suppress(OSError):  # the parent is gone, which `_Monitor` notices
            os.write(self._descriptor, json.dumps(report).encode() + b"\n")


def main() -> int:
    """Entry of the process: 0 when every source is whole, 1 when one failed (its folder says why)."""
    setting = read_setting()
    if "parent" in setting:
        die_with_parent()
    # An orderly end: locks are dropped and no torn file is left.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.nice(NICENESS)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the other cores are for training
    configure_logging()
    jobs, order = read_plan(Path(setting["plan"]))
    told = [_Reports(setting["reports"]).failed] if "reports" in setting else []
    return 0 if build_all(jobs, order, _Monitor(setting), *told) else 1


def read_plan(path: Path) -> tuple[list[SourceJob], BuildOrder]:
    """What is to be built, as service.py wrote it.

    Raises:
        DamagedFileError: it is not as it was written.
    """
    plan = read_checked(path, "run the same command again, it is written at every start")
    return [SourceJob.model_validate(job) for job in plan["jobs"]], BuildOrder.model_validate(plan["order"])


if __name__ == "__main__":
    codes: list[int] = []
    sys.exit(run_guarded(lambda: codes.append(main())) or codes[0])
