"""Two real gloo ranks look for one run folder; once they have it, once each has its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.helpers import ROOT, environment
from tests.support.launch import free_port

PROBE = """
import sys
from pathlib import Path
from torch import distributed
from persianmind.cluster.worker import check_shared
from persianmind.common.errors import ClusterError
from persianmind.engine.ranks import ranks_from_environment
distributed.init_process_group("gloo")
try:
    print("nodes", *check_shared(Path(sys.argv[1]), ranks_from_environment(), wait_s=1.0), flush=True)
except ClusterError as error:
    print("refused", error, flush=True)
distributed.destroy_process_group()
"""


def probe(folders: list[Path], port: int) -> list[str]:
    """What each rank prints when rank i looks at folders[i]."""
    ranks = []
    for rank, folder in enumerate(folders):
        env = environment(
            RANK=str(rank),
            WORLD_SIZE=str(len(folders)),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            GLOO_SOCKET_IFNAME="lo",
            PERSIANMIND_NODE=f"box{rank}",
            PYTHONPATH=str(ROOT),
        )
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", PROBE, str(folder)], env=env, stdout=subprocess.PIPE, text=True
            )
        )
    return [process.communicate(timeout=120)[0].strip() for process in ranks]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.mark.integration
def test_one_folder_is_seen_by_both_and_left_as_it_was(tmp_path: Path, port: int) -> None:
    run = tmp_path / "run"
    assert probe([run, run], port) == ["nodes box0 box1"] * 2
    assert not run.exists()


@pytest.mark.integration
def test_two_folders_are_refused_by_both_with_the_same_words(tmp_path: Path, port: int) -> None:
    (tmp_path / "a").mkdir()
    said = probe([tmp_path / "a" / "run", tmp_path / "b" / "run"], port)
    assert said[0] == said[1]
    assert said[0].startswith("refused the run folder") and "is not seen by box1" in said[0]
    assert not (tmp_path / "a" / "run").exists() and not (tmp_path / "b").exists()


@pytest.mark.integration
def test_a_folder_nobody_can_write_is_refused_by_both(tmp_path: Path, port: int) -> None:
    file = tmp_path / "file"
    file.write_text("")
    said = probe([file / "run", file / "run"], port)
    assert said[0] == said[1] and "cannot be written" in said[0]
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208
