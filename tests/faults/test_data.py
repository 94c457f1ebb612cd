"""Data that change under a real run: refused or taken as asked, never trained on in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from persianmind.checkpoint.manifest import read_manifest
from persianmind.common.checksum import hash_file, read_checked, write_checked
from persianmind.data.manifest import MANIFEST, read_data_manifest
from tests.checkpoint.helpers import newest
from tests.data.helpers import sentences, write_jsonl
from tests.faults.fleet import Fleet, FleetRun
from tests.faults.helpers import BARE, assert_same_run, count, losses, metrics, newest_step
from tests.support.launch import Launched

pytestmark = pytest.mark.integration
ACCEPT = ("--accept-changed-data",)
LINE = "token shards overwritten or cut while trained on; other data on resume"
# Held-out text is taken from the poems, so what the other sources leave out changed as well.
OTHERS_TOO = "source and options; sources.messages: other options; sources.english: other options"


@pytest.mark.parametrize("kind", ["overwrite", "cut"])
def test_shards_damaged_while_they_are_read_end_the_run_before_it_saves(
    fleet: Fleet, fresh: Path, tiny_run: Launched, kind: str
) -> None:
    """And once they are built again, the run goes on as if nothing had been."""
    ended = fleet.run(fresh, *BARE, fault=f"{kind}:0:6")
    assert ended.code == 2 and "Traceback" not in ended.text, ended.text
    assert any("is damaged (its bytes do not match the manifest); delete" in line for line in ended.errors)
    assert newest_step(fresh) == 4, "of the steps since nothing is kept"
    for source in (fresh / "data").iterdir():
        shutil.rmtree(source)
    again = fleet.run(fresh, *BARE)
    assert again.code == 0, again.text
    assert_same_run(again, tiny_run)
    count(LINE, 1, 1)


def test_control_without_looking_damaged_shards_are_trained_on(
    fleet: Fleet, fresh: Path, tiny_run: Launched
) -> None:
    done = fleet.run(fresh, *BARE, fault="unchecked:0:0;overwrite:0:6")
    assert done.code == 0, done.text
    assert losses(done) != losses(tiny_run)


def _other_shard(source: Path) -> None:
    """A folder of the same identity and other tokens, as a hub's data set that changed gives."""
    entry = read_data_manifest(source).shards[0]
    path = source / entry.file
    raw = bytearray(path.read_bytes())
    raw[-64:] = raw[-128:-64]
    path.unlink()  # a linked copy of another test's stays
    path.write_bytes(raw)
    tree = read_checked(source / MANIFEST)
    tree["shards"][0]["hash"] = hash_file(path)
    write_checked(source / MANIFEST, tree)


@pytest.fixture
def stopped(fleet: Fleet, fresh: Path) -> Path:
    """A run that was stopped at step 6, or at the next where the ranks agreed on it too late."""
    assert 75 in fleet.run(fresh, *BARE, fault="term:0:6").codes
    assert newest_step(fresh) in (6, 7)
    return fresh


def _refused(ended: FleetRun, what: str, step: int) -> None:
    # The launcher may end the other rank before it says so itself.
    assert ended.code == 2 and set(ended.codes) <= {2, -9} and len(ended.errors) == 1, ended.text
    assert (
        f"sources.poems: other {what}, since the run was trained on it up to step {step}; " in ended.errors[0]
    )
    assert ACCEPT[0] in ended.errors[0] and "Traceback" not in ended.text


def test_other_shards_on_resume_are_refused_or_taken_and_recorded(fleet: Fleet, stopped: Path) -> None:
    _other_shard(stopped / "data" / "poems")
    before, step = metrics(stopped), newest_step(stopped)
    _refused(fleet.run(stopped, *BARE), "token shards", step)
    assert metrics(stopped) == before and newest_step(stopped) == step
    done = fleet.run(stopped, *BARE, flags=ACCEPT)
    assert done.code == 0, done.text
    change = {"source": "poems", "step": step, "what": "token shards"}
    assert done.results["data_changes"] == [change]
    assert newest(stopped / "checkpoints").metadata["data_changes"] == [change]
    assert f"sources.poems: other token shards from step {step + 1} on" in done.text
    count(LINE, 1, 1)


def test_data_that_no_step_has_used_may_change(fleet: Fleet, stopped: Path) -> None:
    _other_shard(stopped / "data" / "interpret")
    done = fleet.run(stopped, *BARE)
    assert done.code == 0, done.text
    assert done.results["data_changes"] == []


def test_control_a_checkpoint_that_knows_no_data_takes_any(fleet: Fleet, stopped: Path) -> None:
    folder = newest(stopped / "checkpoints").path
    tree = read_checked(folder / "manifest.json")
    assert set(tree["metadata"].pop("data")) == {"poems", "messages", "english"}
    write_checked(folder / "manifest.json", tree)
    assert read_manifest(folder).step in (6, 7)
    _other_shard(stopped / "data" / "poems")
    assert fleet.run(stopped, *BARE).code == 0


@pytest.mark.more
def test_a_source_that_changed_is_refused_before_anything_is_built(fleet: Fleet, tmp_path: Path) -> None:
    """Although its shards were deleted, as the message of a damaged one says."""
    text, run = tmp_path / "poems.jsonl", tmp_path / "run"
    write_jsonl(text, [{"text": one} for one in sentences(400)])
    command = (*BARE, f"sources.poems.uri={text}", "train.self_tests=false")
    assert 75 in fleet.run(run, *command, fault="term:0:6").codes
    write_jsonl(text, [{"text": one} for one in sentences(400, seed=1)])
    shutil.rmtree(run / "data" / "poems")
    step = newest_step(run)
    _refused(fleet.run(run, *command), OTHERS_TOO, step)
    assert not (run / "data" / "poems").exists()
    stale = [one.parent for one in (run / "data").glob("*/manifest.json")]
    assert {"messages", "english"} <= {one.name for one in stale}
    again = fleet.run(run, *command, flags=ACCEPT)
    (line,) = again.errors
    assert again.code == 2 and all(
        f"{one} holds shards that were built with other options" in line for one in stale
    )
    for one in stale:
        shutil.rmtree(one)
    done = fleet.run(run, *command, flags=ACCEPT)
    assert done.code == 0, done.text
    assert {"source": "poems", "step": step, "what": "source and options"} in done.results["data_changes"]
    count(LINE, 1, 1)
