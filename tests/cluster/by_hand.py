"""Boxes (network namespaces) on which docs/cluster.md is typed as printed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from persianmind.common.poll import wait_until
from tests.cluster import namespaces
from tests.cluster.helpers import ROOT, environment
from tests.cluster.page import printed

NODES = 3
HEAD, OTHER, SPARE = range(NODES)
SETTINGS = printed(". .venv/bin/activate")
TOKEN_LINE = printed("(umask 077")
# The boxes share this machine's processors and memory.
SMALL = "--num-cpus=1 --object-store-memory=100000000"
KILL_WAIT_S = 10.0
COLOUR = re.compile(r"\x1b\[\d*m")


class Boxes:
    """A home, and so a token file, and a folder for Ray's own files, for each box; all below `folder`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pm-hand-", dir="/tmp"))
        self.temporary = self.folder / "t"
        self.temporary.mkdir()
        for node in range(NODES):
            self.home(node).mkdir()
            (self.folder / f"t{node}").mkdir()

    def home(self, node: int) -> Path:
        return self.folder / f"home{node}"

    def env(self, node: int) -> dict[str, str]:
        env = environment(HOME=str(self.home(node)), RAY_TMPDIR=str(self.temporary))
        return {name: env[name] for name in env if not name.startswith("RAY_ENABLE_WINDOWS")}

    def typed(self, node: int, command: str) -> list[str]:
        """The command line of a shell on a box, in the project's folder."""
        for number, box in ((10, HEAD), (11, OTHER)):
            command = command.replace(f"192.168.1.{number}", namespaces.address(box))
        # Each `ip netns exec` has mounts of its own: every box sees its own files at the same path.
        own_files = f"mount --bind {self.folder}/t{node} {self.temporary}"
        return [*namespaces.inside(node), "bash", "-c", f"{own_files} && {command}"]

    def run(self, node: int, command: str, *, timeout_s: float = 120) -> tuple[int, str]:
        """To its end: (exit code, output without colours)."""
        done = subprocess.run(
            self.typed(node, command),
            cwd=ROOT,
            env=self.env(node),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode, COLOUR.sub("", done.stdout)

    def start(self, node: int, command: str, log: Path) -> subprocess.Popen[bytes]:
        """In the background, its output in `log`."""
        with log.open("wb") as out:
            return subprocess.Popen(
                self.typed(node, command), cwd=ROOT, env=self.env(node), stdout=out, stderr=subprocess.STDOUT
            )

    def make_token(self) -> str:
        """The printed line on the first box, which has no ~/.ray yet; its file is copied to the others."""
        code, text = self.run(HEAD, TOKEN_LINE)
        assert code == 0, text
        for node in (OTHER, SPARE):
            shutil.copytree(self.home(HEAD) / ".ray", self.home(node) / ".ray")
        return (self.home(HEAD) / ".ray" / "persianmind_token").read_text().strip()

    def processes(self, node: int) -> list[psutil.Process]:
        """Everything that runs on a box."""
        command = ["ip", "netns", "pids", namespaces.name(node)]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        found = []
        for pid in listed:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def named(self, node: int, name: str) -> list[psutil.Process]:
        """Processes of a box whose title begins so."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [one for one in self.processes(node) if " ".join(one.cmdline()).startswith(name)]
        return []

    def switch_off(self, node: int) -> None:
        """As a power cut."""

        def all_gone() -> bool:
            for one in self.processes(node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
            return not self.processes(node)

        wait_until(all_gone, timeout_s=KILL_WAIT_S)


@contextlib.contextmanager
def boxes() -> Iterator[Boxes]:
    """The boxes for the block, with nothing started on them."""
    ours = Boxes()
    with namespaces.machines(NODES):
        try:
            yield ours
        finally:
            for node in range(NODES):
                ours.switch_off(node)
            shutil.rmtree(ours.folder, ignore_errors=True)
