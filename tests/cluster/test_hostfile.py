"""DeepSpeed's own launcher over two machines (network namespaces), without Ray: `--hostfile`, `--no_ssh`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from persianmind.energy.ledger import read_ledger
from persianmind.run.folder import RunFolder
from tests.cluster import namespaces
from tests.cluster.helpers import BIN, FAST, ROOT, TINY, assert_complete, end_family, environment

REASON = namespaces.unavailable()
pytestmark = [pytest.mark.long, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


def launch(node: int, hostfile: Path, run: Path, log: Path) -> subprocess.Popen[bytes]:
    """What docs/cluster.md has a user type on each machine."""
    command = [str(BIN / "deepspeed"), "--hostfile", str(hostfile), "--no_ssh", f"--node_rank={node}"]
    command += [f"--master_addr={namespaces.address(0)}", "--master_port=29511", "launcher/train.py"]
    command += ["--deepspeed", "ds_configs/zero2.json", *TINY, "--output", str(run), *FAST]
    # No interface is named: left to gloo, none of these machines would reach the other.
    env = environment(PERSIANMIND_NODE=f"box{node}")
    with log.open("wb") as out:
        return subprocess.Popen(
            [*namespaces.inside(node), *command], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
        )


def test_two_machines_with_a_hostfile(tmp_path: Path) -> None:
    hostfile, run = tmp_path / "hosts", tmp_path / "run"
    hostfile.write_text("".join(f"{namespaces.address(node)} slots=1\n" for node in (0, 1)))
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
