"""Three machines in network namespaces: a head without workers and two of one CPU. Real Ray, real HTTP."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from persianmind.energy.ledger import read_ledger
from persianmind.run.folder import RunFolder
from tests.cluster import namespaces
from tests.cluster.helpers import (
    BIN,
    FAST,
    LONGER,
    LONGER_STEPS,
    TINY,
    assert_complete,
    end_family,
    environment,
    errors_in,
    start,
    step_of,
    wait_for,
)
from tests.cluster.node_loss import lose_a_node

REASON = namespaces.unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")
DASHBOARD = "http://127.0.0.1:8265"  # of the head's own loopback


@dataclass
class Machines:
    """Ray on the machines, by number; 0 is the head."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pm-ns-", dir="/tmp")))
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def env(self) -> dict[str, str]:
        env = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=self.token)
        del env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]  # here there are several machines
        return env

    def start(self, node: int, *, before: str = "true") -> None:
        """`ray start --block` on a machine, after the shell command `before`."""
        command = [str(BIN / "ray"), "start", "--block", f"--node-ip-address={namespaces.address(node)}"]
        command += ["--object-store-memory=100000000", "--disable-usage-stats"]
        if node == 0:
            command += ["--head", "--port=6379", "--num-cpus=0", "--dashboard-host=127.0.0.1"]
            command += [f"--temp-dir={self.folder}/r"]
        else:
            command += [f"--address={namespaces.address(0)}:6379", "--num-cpus=1"]
        # Each `ip netns exec` has mounts of its own. On files that they share, the package of a job that one
        # machine has unpacked is taken away under its feet while the next unpacks it.
        (self.folder / f"ray{node}").mkdir(exist_ok=True)
        own_files = f"mount --bind {self.folder}/ray{node} {self.folder}/r"
        shell = ["sh", "-c", f'{own_files} && {before} && exec "$@"', "sh", *command]
        with (self.folder / f"node{node}.log").open("ab") as log:
            self.running[node] = subprocess.Popen(
                [*namespaces.inside(node), *shell],
                env=self.env(),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        mark = "Ray runtime started"
        wait_for(lambda: mark in (self.folder / f"node{node}.log").read_text(), 60, self.running[node])

    def kill(self, node: int) -> None:
        """As a power cut."""
        end_family(self.running.pop(node))

    def submit(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """submit.py on the head, over its loopback dashboard."""
        flags = ("--address", DASHBOARD, *arguments)
        return start(*flags, env=self.env(), log=log, prefix=tuple(namespaces.inside(0)))


@pytest.fixture
def machines() -> Iterator[Machines]:
    ours = Machines()
    (ours.folder / "r").mkdir()
    with namespaces.machines(3):
        try:
            for node in range(3):
                ours.start(node)
            yield ours
        finally:
            for node in list(ours.running):
                ours.kill(node)
            shutil.rmtree(ours.folder, ignore_errors=True)


@pytest.mark.more
@pytest.mark.integration
def test_a_node_is_lost_and_the_job_ends_on_the_other(machines: Machines, tmp_path: Path) -> None:
    run = tmp_path / "run"
    lost_s = lose_a_node(machines.submit, lambda: machines.kill(2), run, tmp_path / "log")
    ledger = read_ledger(RunFolder(run))
    nodes = [node for node in ledger.nodes if node.endswith((".2", ".3"))]
    assert len(nodes) == 2, ledger.nodes
    (gone,) = [one for one in ledger.attempts if one.node.endswith(namespaces.address(2))]
    assert gone.samples and datetime.fromisoformat(gone.samples[-1].time).timestamp() <= lost_s + 5
    energy = json.loads((run / "results.json").read_text())["energy"]
    # The account of the run is the sum over both nodes, the dead one's last samples included.
    assert set(energy["by_node"]) == set(ledger.nodes)
    assert sum(energy["by_node"].values()) == pytest.approx(energy["kwh"], rel=1e-6)


@pytest.mark.long
def test_a_node_that_comes_back_is_waited_for(machines: Machines, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags = (*TINY, "--output", str(run), "--cpu-workers", "2", *FAST, LONGER)
    process = machines.submit(*flags, log=log)
    try:
        wait_for(lambda: step_of(run) >= 10, 180, process)
        machines.kill(1)
        time.sleep(15)
        assert process.poll() is None
        machines.start(1)
        assert process.wait(240) == 0, log.read_text()[-4000:]
    finally:
        end_family(process)
    assert log.read_text().count("2 ranks on") >= 2
    assert_complete(run, LONGER_STEPS)


@pytest.mark.long
def test_a_folder_only_one_node_has_is_found_before_step_1(machines: Machines, tmp_path: Path) -> None:
    machines.kill(2)
    shared = tmp_path / "shared"
    shared.mkdir()
    machines.start(2, before=f"mount -t tmpfs none {shared}")
    log = tmp_path / "log"
    flags = (*TINY, "--output", str(shared / "run"), "--cpu-workers", "2", *FAST, LONGER)
    process = machines.submit(*flags, log=log)
    try:
        assert process.wait(180) == 2, log.read_text()[-4000:]
    finally:
        end_family(process)
    text = log.read_text()
    assert "is not seen by" in text and "attempt 2" not in text
    assert errors_in(text) or "persianmind: error:" in text
    with contextlib.suppress(FileNotFoundError):
        assert not (shared / "run" / "metrics.jsonl").exists()
