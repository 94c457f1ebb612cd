"""Where namespaces are not to be had: Ray's own Cluster on one host, and one of its nodes is lost."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import namespaces
from tests.cluster.helpers import end_family, environment, start, wait_for
from tests.cluster.node_loss import lose_a_node
from tests.support.launch import free_port

# With namespaces the same is tested on nodes with addresses of their own (test_nodes.py).
pytestmark = [pytest.mark.integration, pytest.mark.more] if namespaces.unavailable() else [pytest.mark.long]


class OneHost:
    """one_host.py, and what its clients need."""

    def __init__(self, folder: Path) -> None:
        self.env = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))
        self.port, self._said = free_port(), folder / "said"
        with self._said.open("wb") as said, (folder / "cluster.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("one_host.py")), str(self.port)],
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=log,
            )
        self._wait("ready")

    def _wait(self, word: str) -> None:
        wait_for(lambda: word in self._said.read_text().split(), 120, self.process)

    def submit(self, *flags: str, log: Path) -> Any:
        """submit.py to this cluster, in the background."""
        return start("--address", f"http://127.0.0.1:{self.port}", *flags, env=self.env, log=log)

    def lose_second(self) -> None:
        """Kills the second node with its workers."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        self._wait("lost")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OneHost]:
    one = OneHost(tmp_path)
    try:
        yield one
    finally:
        end_family(one.process)


def test_a_node_is_lost_and_the_job_ends_on_the_other(host: OneHost, tmp_path: Path) -> None:
    lose_a_node(host.submit, host.lose_second, tmp_path / "run", tmp_path / "log")
