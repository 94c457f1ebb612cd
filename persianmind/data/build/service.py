"""A builder beside training, as its parent sees it: started, watched, ended."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from persianmind.common.checksum import write_checked
from persianmind.common.child import end_child, start_child
from persianmind.common.disk import writing
from persianmind.data.build.priority import BuildOrder
from persianmind.data.build.source import SourceJob
from persianmind.data.manifest import MANIFEST
from persianmind.data.read.incremental import read_failure, write_failure

WORKER = "persianmind.data.build.worker"
END_WITHIN_S = 10.0


class BackgroundBuild:
    """Context manager: one process that builds sources until they are whole, or until the block is left.

    What it had built by then is kept, and the next one goes on from there. Without jobs nothing is started.
    What it is to do is written beside its log, as a .json file. It says over a pipe what it has done and what
    failed, so that its parent knows without a byte of disk; failures are also written into the folders that
    they leave unfinished, where readers look.

    work_done: changes with everything that the process does.

    Raises:
        DiskError: the disk refuses its log or its plan.
    """

    def __init__(self, jobs: Sequence[SourceJob], order: BuildOrder, log: Path) -> None:
        self.log = log
        self.work_done = 0
        self._jobs = jobs
        self._failures: dict[str, str] = {}
        self._ending = False
        self._process: subprocess.Popen[bytes] | None = None
        if not jobs:
            return
        plan = log.with_suffix(".json")  # not an argument: a source of many files does not fit into one
        write_checked(
            plan,
            {
                "jobs": [job.model_dump(mode="json") for job in jobs],
                "order": order.model_dump(mode="json"),
            },
        )
        reading, reports = os.pipe()
        with writing(log), log.open("ab") as output:
            # A session of its own: Ctrl-C is for training, which ends the builder when it is done itself.
            self._process = start_child(
                WORKER,
                {"plan": str(plan), "reports": reports},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(reports,),
            )
        os.close(reports)
        watch = threading.Thread(
            target=self._watch, args=(self._process, reading), name="builder", daemon=True
        )
        watch.start()

    @property
    def pid(self) -> int | None:
        """The process, if one was started."""
        return None if self._process is None else self._process.pid

    def failures(self) -> dict[str, str]:
        """Why a build has failed, by its packing's name. What was published before can be read."""
        return dict(self._failures)

    def end(self) -> None:
        """Ends the process if it is not done."""
        self._ending = True
        if self._process is not None:
            end_child(self._process, END_WITHIN_S)

    def _watch(self, process: subprocess.Popen[bytes], reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                report = json.loads(line)
                self.work_done = report.get("work_done", self.work_done)
                self._failures |= report.get("failed", {})
        code = process.wait()
        if self._ending or code == 0:
            return
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        for job in self._jobs:
            if job.packing in self._failures or (job.out / MANIFEST).is_file():
                continue
            text = (
                f"the process that builds {job.out} {how} before it was done (its log: {self.log}); run the "
                "same command, it goes on from the last whole shard"
            )
            if read_failure(job.out) is None:
                with suppress(OSError):  # a disk that is full: who asks `failures` knows
                    write_failure(job.out, text)
            self._failures[job.packing] = text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
