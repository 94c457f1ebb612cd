"""Keys that may differ when a run is taken up again: they take effect, and no sample changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from persianmind.run.folder import RunFolder
from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, newest_step, prepared_copy
from tests.support.launch import Launched

pytestmark = [pytest.mark.integration, pytest.mark.more]
ROUNDING = 2e-6  # fp32, as with another number of ranks


@pytest.fixture
def finished(tmp_path: Path, tiny_run: Launched) -> RunFolder:
    """A copy of a finished run."""
    return RunFolder(Path(shutil.copytree(tiny_run.run, tmp_path / "run")))


def test_another_micro_batch_goes_on_with_the_same_samples(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    """With other keys of which the table says that they only round: 1 sequence, then 4, then 3 at a time."""
    run = prepared_copy(tiny_run.run, tmp_path / "run", "train.micro_batch_size=1")
    assert fleet.run(run, *BARE, "train.micro_batch_size=1", fault="term:0:6").code == 75
    others = ["train.micro_batch_size=4", "train.loss_chunk_tokens=64", "train.gradient_checkpointing=off"]
    second = fleet.run(run, *BARE, *others, fault="term:0:15")
    assert second.code == 75 and newest_step(run) >= 15, second.text
    assert "train.micro_batch_size is 4 now, was 1; the samples are the same" in second.text
    last = fleet.run(run, *BARE, *others, "train.micro_batch_size=3")
    assert last.code == 0, last.text
    assert [line["step"] for line in last.metrics] == [line["step"] for line in tiny_run.metrics]
    for ours, theirs in zip(last.metrics, tiny_run.metrics, strict=True):
        for key in ("first_sample", "samples", "tokens", "target_tokens", "learning_rate"):
            assert ours[key] == theirs[key]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=ROUNDING), ours["step"]
        assert ours["loss_by_source"].keys() == theirs["loss_by_source"].keys()


def test_another_export_is_made_of_a_finished_run(fleet: Fleet, finished: RunFolder) -> None:
    """And the control: the same recipe again, or a key that comes too late, makes nothing."""
    before = finished.export.stat().st_ino
    again = fleet.run(finished.path)
    tolerance = again.results["export"]["tolerance"]
    assert again.code == 0 and "all done" in again.text and finished.export.stat().st_ino == before
    late = fleet.run(finished.path, "train.trackers=[]", "checkpoint.keep_last=9")
    assert "without effect on a run that is done: checkpoint.keep_last;" in late.text
    other = fleet.run(finished.path, "export.dtype=bfloat16", "sources.poems.licence=cc-by-4.0")
    assert other.code == 0 and "all done" not in other.text, other.text
    manifest = json.loads((finished.export / "manifest.json").read_text())
    assert manifest["dtype"] == "bfloat16"
    config = json.loads((finished.export / "config.json").read_text())
    assert "bfloat16" in (config.get("dtype"), config.get("torch_dtype"))
    assert "cc-by-4.0" in (finished.export / "README.md").read_text()
    assert other.results["finished"]
    assert other.results["export"]["tolerance"] > tolerance
    done = fleet.run(finished.path, "export.dtype=bfloat16", "sources.poems.licence=cc-by-4.0")
    assert "all done" in done.text


def test_an_export_that_somebody_worked_in_is_not_removed(fleet: Fleet, finished: RunFolder) -> None:
    (finished.export / "notes.txt").write_text("mine")
    refused = fleet.run(finished.path, "export.dtype=bfloat16")
    assert refused.code == 2 and any("notes.txt is not in the manifest; move" in e for e in refused.errors)
    assert (finished.export / "notes.txt").read_text() == "mine"
    (finished.export / "notes.txt").unlink()
    assert fleet.run(finished.path, "export.dtype=bfloat16").code == 0


def test_what_preparation_advises_is_not_refused_by_the_folder(fleet: Fleet, tmp_path: Path) -> None:
    run = tmp_path / "run"
    refused = fleet.run(run, *BARE, "heldout.ratio=0.0")
    assert refused.code == 2 and any("raise heldout.ratio=" in line for line in refused.errors), refused.text
    followed = fleet.run(run, *BARE, fault="term:0:2;term:1:2")
    assert followed.code == 75 and newest_step(run) >= 2, followed.text
    other = fleet.run(run, *BARE, "heldout.ratio=0.5")  # control: now something depends on it
    assert other.code == 2 and any("belongs to a run with heldout.ratio" in line for line in other.errors)
