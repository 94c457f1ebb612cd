"""A run whose second stage has shorter sequences: killed in it, it goes on with every loss as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, assert_same_run, newest_step, prepared_copy
from tests.support.launch import Launched

pytestmark = pytest.mark.integration
SHORT = "stages.1.seq_len=128"
# Of 4 sequences: 16 steps of 256 tokens, 7,168 tokens in steps of 128, 7 steps of 256.
STEPS = {"pretrain": 16, "instruct-1": 14, "instruct-2": 7}
WITHIN = 22


@pytest.fixture(scope="module")
def whole(fleet: Fleet, tiny_run: Launched, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """That run, undisturbed. Its data at 256 are those of the tiny run."""
    run = prepared_copy(tiny_run.run, tmp_path_factory.mktemp("whole") / "run", SHORT)
    built = {path: path.stat().st_mtime_ns for path in run.glob("data/*/shard-*")}
    done = fleet.run(run, *BARE, SHORT)
    assert done.code == 0, done.text
    assert {path: path.stat().st_mtime_ns for path in built} == built, "what was packed at 256 is used again"
    return done


def test_each_stage_has_sequences_of_its_own(whole: Launched, tiny_run: Launched) -> None:
    by_stage = {name: [one for one in whole.metrics if one["stage"] == name] for name in STEPS}
    assert {name: len(lines) for name, lines in by_stage.items()} == STEPS
    tokens = {name: {line["tokens"] for line in lines} for name, lines in by_stage.items()}
    assert tokens == {"pretrain": {1024}, "instruct-1": {512}, "instruct-2": {1024}}
    assert all(line["useful_tokens"] <= line["tokens"] for line in whole.metrics)
    # Half the tokens, half of what the layers keep of them.
    kept = {name: {line["memory"]["activations"] for line in lines} for name, lines in by_stage.items()}
    (long,), (short,) = kept["pretrain"], kept["instruct-1"]
    assert kept["instruct-2"] == {long} and 0.45 < short / long < 0.55
    # English is read at both lengths, those instructions at 128 alone: their folder at 256 is a copy.
    names = {path.name for path in (whole.run / "data").iterdir()}
    assert names - {path.name for path in (tiny_run.run / "data").iterdir()} == {
        "english@128",
        "translate@128",
    }
    assert whole.stages == ["base", *STEPS]


def test_control_the_first_stage_is_that_of_the_tiny_run_and_the_second_is_another(
    whole: Launched, tiny_run: Launched
) -> None:
    mine, tiny = ([line["loss_hex"] for line in one.metrics] for one in (whole, tiny_run))
    assert mine[:16] == tiny[:16] and mine[16] != tiny[16]


def test_killed_in_the_second_stage_it_goes_on_with_every_loss_as_it_was(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched, whole: Launched
) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run", SHORT)
    killed = fleet.run(run, *BARE, SHORT, fault=f"kill:1:{WITHIN}")
    assert killed.codes[1] == -9, killed.text
    assert 16 < newest_step(run) < WITHIN
    other = fleet.run(run, *BARE, "stages.1.seq_len=64")
    assert 2 in other.codes, other.text
    assert "stages.1.seq_len=128, this one has 64" in other.errors[0]
    coming = fleet.run(run, *BARE, SHORT, "stages.2.seq_len=128")
    assert 2 in coming.codes and "stages.2.seq_len=None, this one has 128" in coming.errors[0]
    again = fleet.run(run, *BARE, SHORT)
    assert again.code == 0 and "resuming from" in again.text, again.text
    assert_same_run(again, whole)
    assert again.results["evaluation"] == whole.results["evaluation"]


@pytest.mark.more
def test_on_another_number_of_ranks_it_goes_on_with_the_same_samples(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched, whole: Launched
) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run", SHORT)
    fleet.run(run, *BARE, SHORT, fault=f"term:0:{WITHIN}")
    assert WITHIN <= newest_step(run) < 30
    again = fleet.run(run, *BARE, SHORT, ranks=1)
    assert again.code == 0, again.text
    keys = ("step", "stage", "first_sample", "target_tokens", "tokens")
    assert [[line[key] for key in keys] for line in again.metrics] == [
        [line[key] for key in keys] for line in whole.metrics
    ]
    for mine, other in zip(again.metrics, whole.metrics, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=2e-3)


@pytest.mark.more
def test_shards_of_the_second_length_that_changed_are_refused(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    """They are known to the checkpoint by their own name."""
    run = prepared_copy(tiny_run.run, tmp_path / "run", SHORT)
    fleet.run(run, *BARE, SHORT, fault=f"kill:0:{WITHIN}")
    shard = run / "data" / "translate@128" / "shard-000000.safetensors"
    os.truncate(shard, shard.stat().st_size - 2)
    refused = fleet.run(run, *BARE, SHORT)
    assert refused.code not in (0, -9) and any("translate@128" in line for line in refused.errors)
