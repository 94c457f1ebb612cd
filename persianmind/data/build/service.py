"""A builder beside training, as its parent sees it: started, watched, ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import persianmind
from persianmind.data.read.incremental import read_failure, write_failure
from persianmind.data.manifest import MANIFEST

END_WITHIN_S = 10.0
RETRY_S = 2.0


class BackgroundBuild:
    """Context manager: one process that builds sources until they are whole, or until the block is left.

    What it had built by then is kept, and the next one goes on from there. A process that dies before its
    time is reported in the folders it leaves unfinished, where every reader looks. Without names nothing is
    started.
    """

    def __init__(
        self, recipe_file: Path, tokenizer_dir: Path, out: Path, names: Sequence[str], log: Path
    ) -> None:
        self._folders = [out / name for name in names]
        self._log = log
        self._ending = False
        self._process: subprocess.Popen[bytes] | None = None
        if not names:
            return
        options = [f"--recipe={recipe_file}", f"--tokenizer={tokenizer_dir}", f"--out={out}"]
        command = [sys.executable, "-m", "persianmind.data.build.worker", *options, f"--parent={os.getpid()}"]
        root = str(Path(persianmind.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with log.open("ab") as output:
            # A session of its own: Ctrl-C is for training, which ends the builder when it is done itself.
            self._process = subprocess.Popen(
                [*command, *names],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=self._watch, args=(self._process,), name="builder", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """The process, if one was started."""
        return None if self._process is None else self._process.pid

    def end(self) -> None:
        """Ends the process if it is not done."""
        self._ending = True
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if self._ending or code == 0:
            return
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        for folder in self._folders:
            if not (folder / MANIFEST).is_file() and read_failure(folder) is None:
                self._report(
                    folder,
                    f"the process that builds {folder} {how} before it was done (its log: {self._log}); run "
                    "the same command, it goes on from the last whole shard",
                )

    def _report(self, folder: Path, text: str) -> None:
        """Readers would wait for ever without it, so a disk that is full is asked again."""
        while not self._ending:
            try:
                return write_failure(folder, text)
            except OSError:
                time.sleep(RETRY_S)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
