"""kill -9 of a rank at every phase of a save: the newest whole one is used, and the next save works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from persianmind.checkpoint.store import PHASES
from tests.checkpoint.helpers import contents, make_store, newest, newest_and_log, save
from tests.support.launch import ROOT

# From this place on the new checkpoint is committed, whatever happens to the process.
COMMITTED = {"renamed", "pointed", "retired", "mid-removal", "never"}
PLACES = [*PHASES, "mid-write", "mid-removal", "never"]
CASES = [(1, 0, place) for place in PLACES] + [
    (2, rank, place)
    for rank in (0, 1)
    for place in PLACES
    # Rank 1 takes no part in committing and removing.
    if rank == 0 or place not in {"manifest", "renamed", "pointed", "mid-removal", "never"}
]


def run_worker(root: Path, world_size: int, rank: int, place: str, *mode: str) -> list[int]:
    worker = Path(__file__).with_name("save_worker.py")
    command = [sys.executable, str(worker), str(root), str(world_size), str(rank), place, *mode]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    codes: list[int] = json.loads(done.stdout)
    return codes


@pytest.mark.parametrize(("world_size", "rank", "place"), CASES)
def test_killed_save_leaves_a_whole_newest_one(
    tmp_path: Path, world_size: int, rank: int, place: str
) -> None:
    codes = run_worker(tmp_path, world_size, rank, place)
    assert codes[rank] == (0 if place == "never" else -9), codes
    assert all(code in (0, 3, -9) for code in codes)
    found = newest(tmp_path)  # a killed save leaves nothing that looks like a damaged checkpoint
    # Rank 1's hashes are with rank 0 by then, which commits alone.
    committed = place in COMMITTED or (rank == 1 and place == "hashed")
    assert found.step == (20 if committed else 10)
    for name, content in contents(found.step).items():
        assert found.file(name).read_bytes() == content
    # The next save takes the place of what was left over.
    save(make_store(tmp_path), 30)
    assert not list(tmp_path.glob(".tmp-*"))
    assert newest(tmp_path).step == 30


@pytest.mark.parametrize("place", ["mid-write", "written", "hashed"])
def test_control_without_the_temporary_folder_a_torn_one_appears(tmp_path: Path, place: str) -> None:
    assert run_worker(tmp_path, 1, 0, place, "unguarded") == [-9]
    found, lines = newest_and_log(tmp_path)
    assert "step-20/manifest.json: is missing" in lines[0]
    assert found is not None and found.step == 10  # the manifest, written last, is the second guard
