"""--resume-from: a new run with the trained weights of another, and nothing else of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from persianmind.engine.deepspeed.reshard import gather_state
from tests.checkpoint.helpers import newest
from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, metrics, prepared_copy
from tests.support.launch import Launched, launch

pytestmark = pytest.mark.integration
# The last stage of the tiny recipe again, over a base in 4 bits.
QLORA = (
    "train.quantize=nf4",
    "train.self_tests=false",
    "stages=[{name: more, sources: {interpret: 0.8, english: 0.2}, tokens: 4096}]",
)
SHARD = "deepspeed/zero_pp_rank_1_mp_rank_00_optim_states.pt"


@pytest.fixture
def qlora(tmp_path: Path, tiny_run: Launched) -> Path:
    """A run folder of the QLoRA recipe, prepared."""
    run = prepared_copy(tiny_run.run, tmp_path / "qlora", *QLORA)
    for source in (run / "data").iterdir():
        if source.name not in ("interpret", "english"):
            shutil.rmtree(source)
    return run


@pytest.fixture
def source(tmp_path: Path, tiny_run: Launched) -> Path:
    """A copy of the finished LoRA run's checkpoints, to be damaged."""
    shutil.copytree(tiny_run.run / "checkpoints", tmp_path / "source" / "checkpoints")
    return tmp_path / "source"


@pytest.mark.more
def test_lora_to_qlora_goes_on_where_the_weights_were(fleet: Fleet, qlora: Path, tiny_run: Launched) -> None:
    flags = ("--resume-from", str(tiny_run.run))
    done = fleet.run(qlora, *BARE, *QLORA, flags=flags)
    assert done.code == 0, done.text
    taken = f"trained weights taken from {tiny_run.run}/checkpoints/step-30 (step 30)"
    assert f"{taken}; optimizer, schedule and data start afresh" in done.text
    assert done.results["warm_start"] == {"path": str(tiny_run.run), "step": 30, "stage": "instruct-2"}
    # 5.6 at the end of the source; 7.3 without its weights (the control below). 4 bits cost a little.
    assert done.metrics[0]["loss"] == pytest.approx(tiny_run.metrics[-1]["loss"], abs=0.6)
    saved = newest(qlora / "checkpoints")
    steps = {float(one["step"]) for one in gather_state(saved).parameters.values()}
    assert steps == {4.0}  # of the optimizer: its own four, not thirty more


@pytest.mark.more
def test_control_without_it_the_first_loss_is_that_of_an_untrained_model(
    fleet: Fleet, qlora: Path, tiny_run: Launched
) -> None:
    done = fleet.run(qlora, *BARE, *QLORA)
    assert done.code == 0, done.text
    assert done.metrics[0]["loss"] > tiny_run.metrics[-1]["loss"] + 1.0


@pytest.mark.more
def test_another_vocabulary_is_refused(fleet: Fleet, tmp_path: Path, source: Path) -> None:
    run = tmp_path / "other"
    refused = fleet.run(run, *BARE, "vocab.new_tokens=300", flags=("--resume-from", str(source)))
    assert set(refused.codes) == {5}, refused.text
    assert "was trained over another tokenizer; its weights mean nothing here" in refused.errors[0]
    assert not metrics(run) and not list(run.glob("checkpoints/step-*"))


def test_a_missing_path_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--recipe", "tiny", "--output", str(run), "--resume-from", str(tmp_path / "nowhere")]
    refused = launch(*arguments, ranks=0)
    assert refused.code == 5 and len(refused.errors) == 1, refused.text
    assert "neither a checkpoint nor a run folder with checkpoints" in refused.errors[0]
    assert not run.exists()


@pytest.mark.more
def test_damage_is_named(fleet: Fleet, qlora: Path, source: Path) -> None:
    """A given checkpoint must be whole; of a run, the newest whole one is taken, and never a damaged one."""
    newest = source / "checkpoints" / "step-30"
    os.truncate(newest / SHARD, 100)
    refused = fleet.run(qlora, *BARE, *QLORA, flags=("--resume-from", str(newest)))
    assert set(refused.codes) == {5}
    assert f"is not usable: step-30/{SHARD}: has 100 bytes" in refused.errors[0]
    assert not metrics(qlora)
    # Its own first weights are on record from here on, once some are taken.
    killed = fleet.run(qlora, *BARE, *QLORA, flags=("--resume-from", str(source)), fault="kill:0:2")
    assert f"step-30 is not usable: step-30/{SHARD}" in killed.text
    assert "trained weights taken from" in killed.text and "step-28" in killed.text
    forgotten = fleet.run(qlora, *BARE, *QLORA)
    assert set(forgotten.codes) == {5}
    assert f"began with weights from {source}; give --resume-from {source} again" in forgotten.errors[0]
