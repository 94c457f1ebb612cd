"""ZeRO-2 state survives a change of the number of ranks bit for bit; real engines, fp32 and bf16."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")

from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.common.errors import CheckpointError
from persianmind.engine.deepspeed import reshard
from persianmind.engine.deepspeed.loading import load_verified
from persianmind.engine.deepspeed.reshard import FullState, gather_state, parameter_shapes
from tests.checkpoint.helpers import forge_manifest, newest

torch = pytest.importorskip("torch")
PRECISIONS = ["fp32", "bf16"]
NAMES = {"lora_a": (3, 17), "lora_b": (13, 3), "embeddings": (7, 17), "gate": (1,)}


def checkpoint_of(store: Path) -> StoredCheckpoint:
    return newest(store)


def bits(value: torch.Tensor) -> torch.Tensor:
    return value.view(torch.int32)


def same_bits(one: FullState, other: FullState) -> bool:
    keys = {name: sorted(values) for name, values in one.parameters.items()}
    assert keys == {name: sorted(values) for name, values in other.parameters.items()}
    pairs = [(one.parameters[n][k], other.parameters[n][k]) for n in keys for k in keys[n]]
    return one.groups == other.groups and all(
        left.dtype == right.dtype == torch.float32
        and torch.equal(left.view(torch.int32), right.view(torch.int32))
        for left, right in pairs
    )


@pytest.mark.integration
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("journey", [("a2", "b1", "c2"), ("a1", "b2", "c1")], ids=["2-1-2", "1-2-1"])
def test_masters_moments_and_weights_survive_the_journey(
    zero_runs: Path, precision: str, journey: tuple[str, str, str]
) -> None:
    start, between, back = (checkpoint_of(zero_runs / precision / name) for name in journey)
    assert start.world_size == back.world_size != between.world_size
    state = gather_state(start)
    assert {name: tuple(value["fp32"].shape) for name, value in state.parameters.items()} == NAMES
    assert all(set(value) == {"fp32", "exp_avg", "exp_avg_sq", "step"} for value in state.parameters.values())
    assert all(value["exp_avg_sq"].abs().sum() > 0 for value in state.parameters.values())
    assert same_bits(state, gather_state(between))
    assert same_bits(state, gather_state(back))
    weights = [
        load_verified(c, "deepspeed/mp_rank_00_model_states.pt")["module"] for c in (start, between, back)
    ]
    for name in NAMES:
        assert torch.equal(weights[0][name], weights[1][name]), name
        assert torch.equal(weights[0][name], weights[2][name]), name


@pytest.mark.integration
@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_goes_on_as_if_nothing_had_moved(zero_runs: Path, precision: str) -> None:
    """2 ranks train on from their own files, or from files that 1 rank wrote: the same bits two steps later,
    learning rates, schedule, clipping and Adam's bias correction included."""
    direct = gather_state(checkpoint_of(zero_runs / precision / "direct2"))
    assert float(direct.parameters["embeddings"]["step"]) == 5
    assert same_bits(direct, gather_state(checkpoint_of(zero_runs / precision / "via1")))
    # Control: with the moments left behind, the comparison must fail.
    assert not same_bits(direct, gather_state(checkpoint_of(zero_runs / precision / "unmoved")))


@pytest.mark.integration
@pytest.mark.parametrize("precision", PRECISIONS)
def test_background_save_keeps_the_moment_of_its_snapshot(zero_runs: Path, precision: str) -> None:
    on_time = checkpoint_of(zero_runs / precision / "a2")
    late = checkpoint_of(zero_runs / precision / "late2")
    assert dict(late.files) == dict(on_time.files)  # sizes and hashes: the same bytes
    # Control: the steps trained meanwhile would show.
    assert not same_bits(gather_state(late), gather_state(checkpoint_of(zero_runs / precision / "direct2")))


@pytest.mark.integration
def test_error_of_one_rank_is_raised_by_both(zero_runs: Path) -> None:
    messages = [(zero_runs / f"failure-{rank}.txt").read_text() for rank in (0, 1)]
    assert messages[0] == messages[1]
    assert "rank 1: OSError" in messages[0] and "rank 0" not in messages[0]
    assert list((zero_runs / "failed").iterdir()) == []


@pytest.mark.integration
def test_checkpoint_holds_no_frozen_weight_and_no_code(zero_runs: Path) -> None:
    found = checkpoint_of(zero_runs / "bf16" / "a2")
    assert sorted(found.files) == [
        "deepspeed/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "deepspeed/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
        "deepspeed/mp_rank_00_model_states.pt",
    ]
    module = load_verified(found, "deepspeed/mp_rank_00_model_states.pt")["module"]
    assert set(module) == set(NAMES)


@pytest.mark.integration
def test_wrong_rank_order_would_be_noticed(zero_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control of the journey tests: pieces joined in another order are other bits."""
    found = checkpoint_of(zero_runs / "fp32" / "a2")
    right = gather_state(found)
    names = reshard.shard_names(found)
    monkeypatch.setattr(reshard, "shard_names", lambda *_: names[::-1])
    assert not same_bits(right, gather_state(found))


@pytest.mark.integration
def test_missing_rank_file_is_named(zero_runs: Path, tmp_path: Path) -> None:
    source = checkpoint_of(zero_runs / "fp32" / "a2")
    folder = tmp_path / "step-3"
    shutil.copytree(source.path, folder)
    forged = StoredCheckpoint(**{**vars(source), "path": folder, "world_size": 3})
    with pytest.raises(CheckpointError, match=r"saved by 3 ranks but has ZeRO files of ranks \[0, 1\]"):
        gather_state(forged)


@pytest.mark.integration
def test_incomplete_pieces_are_named(zero_runs: Path, tmp_path: Path) -> None:
    """Rank 1's file replaced by a copy of rank 0's, hashes forged: the pieces no longer add up."""
    source = checkpoint_of(zero_runs / "fp32" / "a2")
    folder = tmp_path / "step-3"
    shutil.copytree(source.path, folder)
    first, second = (folder / name for name in reshard.shard_names(source))
    shutil.copyfile(first, second)
    forge_manifest(folder)
    with pytest.raises(CheckpointError, match=r"pieces of \w+ have \d+ of \d+ elements"):
        gather_state(checkpoint_of(tmp_path))


@pytest.mark.integration
def test_other_parameters_are_refused_by_name_before_anything_changes(zero_runs: Path) -> None:
    shapes = parameter_shapes(checkpoint_of(zero_runs / "fp32" / "a2"))
    flat = {name: shape for group in shapes for name, shape in group.items()}
    parameters = [torch.nn.Parameter(torch.zeros(3, 17)), torch.nn.Parameter(torch.zeros(8, 17))]
    zero = SimpleNamespace(
        bit16_groups=[parameters], param_names=dict(zip(parameters, ["lora_a", "embeddings"], strict=True))
    )
    problems = reshard.differences(zero, flat)
    assert "embeddings has shape (8, 17) here and (7, 17) in the checkpoint" in problems
    assert "gate is in the checkpoint and not trained here" in problems
    with pytest.raises(CheckpointError, match="does not fit this model"):
        reshard.scatter_state(zero, gather_state(checkpoint_of(zero_runs / "fp32" / "a2")))
