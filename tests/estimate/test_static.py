"""The state's bytes beside independent sums, real bitsandbytes and DeepSpeed's own buffers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from persianmind.estimate.partitions import FlatGroup, ReductionSettings, reduction_peak
from persianmind.estimate.shapes import meta_model, parameter_counts
from persianmind.estimate.static import resident_bytes, step_bytes
from tests.estimate.real_models import ADDED, VOCAB, Shape
from tests.support.launch import ROOT, launch

ZERO = {"reduce_bucket_size": 10**7, "overlap_comm": False, "contiguous_gradients": True}


def unique_bytes(tensors: list[torch.Tensor]) -> int:
    """Of storages, each once."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


@pytest.mark.parametrize(
    ("tied", "quantize"), [(False, "none"), (True, "none"), (False, "nf4"), (True, "int8")]
)
def test_weights_are_those_of_the_loaded_model_to_the_byte(tmp_path: Path, tied: bool, quantize: str) -> None:
    shape = Shape(tied, quantize, "full", 256)
    real = shape.load(tmp_path)
    held: list[torch.Tensor] = []
    for value in real.parameters():
        held.append(value)
        if (state := getattr(value, "quant_state", None)) is not None:
            held += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    planned = resident_bytes(meta_model(shape.recipe, shape.config, VOCAB, ADDED), 1)
    assert planned.base + planned.new_embeddings + planned.adapters == unique_bytes(held)
    assert planned.buffers == unique_bytes(list(real.buffers()))


def test_the_7b_in_4_bit_by_hand() -> None:
    """Half a byte and one 64th of a byte per weight, 4 bytes per 64 x 256 of them, tables and mean beside."""
    from persianmind.estimate.bases import base_config
    from persianmind.recipe.loading import load_recipe

    recipe = load_recipe("persianmind-7b", ["train.quantize=nf4"])
    model = meta_model(recipe, base_config(recipe.base), 32_000, 9_510)
    weights = [4096 * 4096] * 4 + [4096 * 11_008] * 3
    packed = sum(n // 2 + n // 64 + 4 * (n // 64 // 256) + 16 * 4 + 256 * 4 + 4 for n in weights)
    tables_and_norms = 2 * (2 * 32_000 * 4096 + 65 * 4096)
    state = resident_bytes(model, 4)
    assert state.base == 32 * packed + tables_and_norms
    assert state.new_embeddings == 2 * 2 * 9_510 * 4096 and state.adapters == 2 * 19_988_480
    assert state.masters == 97_894_400 and state.moments == 2 * 97_894_400  # 4 and 8 bytes over 4 ranks
    counts = parameter_counts(model)
    assert counts.total == 6_816_321_536 and counts.trained == 97_894_400


def test_the_7b_in_int8_by_hand() -> None:
    """A byte per weight, an fp32 scale per output, and a rotation of 64 x 64 in bf16 per projection."""
    from persianmind.estimate.bases import base_config
    from persianmind.recipe.loading import load_recipe

    recipe = load_recipe("persianmind-7b", ["train.quantize=int8"])
    model = meta_model(recipe, base_config(recipe.base), 32_000, 9_510)
    weights = 4 * 4096 * 4096 + 3 * 4096 * 11_008
    tables_and_norms = 2 * (2 * 32_000 * 4096 + 65 * 4096)
    state = resident_bytes(model, 4)
    assert state.base == 32 * weights + tables_and_norms
    rotary = 2 * 4 * 64  # the frequencies of a head of 128, and those they began as
    assert state.buffers - rotary == 32 * (4 * (5 * 4096 + 2 * 11_008) + 7 * 2 * 64 * 64)
    counts = parameter_counts(model)
    assert counts.total == 6_816_321_536 and counts.trained == 97_894_400


def test_partitions_cut_parameters_where_they_must() -> None:
    group = FlatGroup([10, 3, 8], ranks=4)  # 21 weights, padded to 24, 6 for each rank
    assert (group.padded, group.partition) == (24, 6)
    assert [list(group.owned(rank)) for rank in range(4)] == [
        [(10, 6)],
        [(10, 4), (3, 2)],
        [(3, 1), (8, 5)],
        [(8, 3)],
    ]


def test_a_gradient_larger_than_the_bucket_stays_where_it_is() -> None:
    groups = [FlatGroup([4, 4], 2), FlatGroup([20], 2)]
    peak = reduction_peak(groups, 0, ReductionSettings(bucket=10))
    # The bucket has the small ones; the large one waits; rank 0 copies out the first and the large one.
    assert (peak.gradients, peak.buckets, peak.partition, peak.copies) == (20, 10, 24, 0)
    assert reduction_peak(groups, 0, ReductionSettings(bucket=10, buffers=2)).buckets == 20


def test_fp32_gradients_are_counted_once() -> None:
    shape = Shape(False, "none", "full", 256)
    recipe = shape.recipe.model_copy(
        update={"train": shape.recipe.train.model_copy(update={"precision": "fp32"})}
    )
    for one, gradients in ((shape.recipe, True), (recipe, False)):
        model = meta_model(one, shape.config, VOCAB, ADDED)
        step = step_bytes(model, {"zero_optimization": {**ZERO, "reduce_bucket_size": 10}}, 2)
        assert (step.reduction["gradients"] > 0) == gradients
        assert step.fp32_accumulators == 4 * parameter_counts(model).trained


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two ranks of the real engine hold."""
    out = tmp_path_factory.mktemp("static") / "seen.json"
    worker = ROOT / "tests" / "estimate" / "state_worker.py"
    launched = launch(ranks=2, script=worker, environment={"OUT": str(out)})
    assert launched.code == 0 and out.is_file(), launched.text
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_deepspeeds_own_buffers_to_the_byte(seen: dict[str, Any], precision: str) -> None:
    one = seen[precision]
    assert one["planned"] == one["held"]


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_highest_moment_of_a_step_is_the_measured_one(seen: dict[str, Any], precision: str) -> None:
    one = seen[precision]
    assert one["planned_peak"] == pytest.approx(one["measured_peak"], rel=0.05)
