"""DeepSpeed's own launcher over two machines (network namespaces), without Ray: `--hostfile`, `--no_ssh`."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from persianmind.energy.ledger import read_ledger
from persianmind.run.folder import RunFolder
from tests.cluster import namespaces
from tests.cluster.helpers import FAST, ROOT, TINY, assert_complete, end_family, environment
from tests.cluster.page import printed

REASON = namespaces.unavailable()
pytestmark = [pytest.mark.long, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


PRINTED_HOSTS, PRINTED_LINE = printed("printf"), printed("deepspeed --hostfile hosts --no_ssh")


def here(command: str) -> str:
    """With the addresses of these machines."""
    for node in (0, 1):
        command = command.replace(f"192.168.1.1{node}", namespaces.address(node))
    return command


def launch(node: int, hostfile: Path, run: Path, log: Path) -> subprocess.Popen[bytes]:
    """What docs/cluster.md has a user type on each machine, with a recipe that fits here."""
    line = (
        here(PRINTED_LINE)
        .replace("node_rank=N", f"node_rank={node}")
        .replace("hostfile hosts", f"hostfile {hostfile}")
    )
    line = line.partition("--recipe")[0] + shlex.join([*TINY, "--output", str(run), *FAST])
    # No interface is named: left to gloo, none of these machines would reach the other.
    env = environment(PERSIANMIND_NODE=f"box{node}")
    with log.open("wb") as out:
        return subprocess.Popen(
            [*namespaces.inside(node), "bash", "-c", f"exec {line}"],
            cwd=ROOT,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def test_two_machines_with_a_hostfile(tmp_path: Path) -> None:
    hostfile, run = tmp_path / "hosts", tmp_path / "run"
    subprocess.run(
        ["bash", "-c", here(PRINTED_HOSTS).replace("slots=4", "slots=1")], cwd=tmp_path, check=True
    )
    with namespaces.machines(2):
        nodes = [launch(node, hostfile, run, tmp_path / f"log{node}") for node in (1, 0)]
        try:
            codes = [process.wait(240) for process in nodes]
        finally:
            for process in nodes:
                end_family(process)
    assert codes == [0, 0], "\n".join((tmp_path / f"log{node}").read_text()[-2000:] for node in (0, 1))
    log = (tmp_path / "log0").read_text()
    assert "x 2 ranks)" in log
    assert f"GLOO_SOCKET_IFNAME={namespaces.INTERFACE} (the interface towards rank 0)" in log
    assert_complete(run, 30)
    assert sorted(read_ledger(RunFolder(run)).nodes) == ["box0", "box1"]
