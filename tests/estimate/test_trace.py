"""A micro-batch traced without values, beside the allocations of a real one as torch's profiler sees them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from persianmind.estimate.planner import with_values
from persianmind.estimate.shapes import meta_model
from persianmind.estimate.static import resident_bytes
from persianmind.estimate.trace import trace_few_layers, trace_micro_batch, with_layers
from persianmind.recipe.loading import load_recipe
from tests.estimate.real_models import ADDED, VOCAB, Shape, measured_peak

SOME = [
    Shape(False, "none", "full", 256),
    Shape(True, "none", "off", 256),
    Shape(False, "nf4", "full", 256),
    Shape(False, "int8", "full", 256),
    Shape(True, "int8", "selective", 256),
]
MANY = [
    Shape(tied, quantize, checkpointing, seq_len)
    for (tied, quantize), checkpointing, seq_len in itertools.product(
        [(False, "none"), (True, "none"), (False, "nf4"), (False, "int8")],
        ["off", "selective", "full"],
        [256, 1024],
    )
]


def traced(shape: Shape) -> tuple[int, int]:
    """(weights, peak beyond them) as the planner says."""
    model = meta_model(shape.recipe, shape.config, VOCAB, ADDED)
    state = resident_bytes(model, 1)
    trace = trace_micro_batch(model, 1, shape.seq_len, shape.lengths, on_cpu=True)
    return state.base + state.new_embeddings + state.adapters, trace.peak_bytes


def compare(shape: Shape, folder: Path) -> None:
    model = shape.load(folder)
    measured = measured_peak(model, shape, folder)
    _, predicted = traced(shape)
    print(f"{shape}: predicted {predicted:,}, measured {measured:,}, {predicted / measured - 1:+.2%}")
    assert predicted == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("shape", SOME, ids=str)
def test_the_peak_of_a_micro_batch_is_the_measured_one(shape: Shape, tmp_path: Path) -> None:
    compare(shape, tmp_path)


@pytest.mark.more
@pytest.mark.parametrize("shape", MANY, ids=str)
def test_the_peak_of_many_shapes(shape: Shape, tmp_path: Path) -> None:
    compare(shape, tmp_path)


def test_control_another_recompute_policy_is_far_away() -> None:
    _, full = traced(SOME[0])
    _, off = traced(Shape(False, "none", "off", 256))
    assert off > 1.3 * full


@pytest.mark.parametrize("setting", ["off", "selective", "full", "{full_layers: 4}", "{full_layers: 1}"])
@pytest.mark.parametrize("quantize", ["none", "nf4", "int8"])
def test_few_layers_give_the_whole_model_to_the_byte(setting: str, quantize: str) -> None:
    shape = Shape(False, quantize, setting, 512, layers=9)
    config, recipe = shape.config, shape.recipe
    whole = trace_micro_batch(meta_model(recipe, config, VOCAB, ADDED), 2, 512)
    few = trace_few_layers(
        lambda layers, way: meta_model(
            with_values(recipe, {"train.gradient_checkpointing": way}),
            with_layers(config, layers),
            VOCAB,
            ADDED,
        ),
        recipe,
        9,
        2,
        512,
    )
    assert few.peak_bytes == whole.peak_bytes and few.gradient_bytes == whole.gradient_bytes
    assert few.flops == whole.flops and few.int8_flops == whole.int8_flops


def test_the_largest_tensor_is_named() -> None:
    shape = Shape(False, "none", "full", 256)
    trace = trace_micro_batch(meta_model(shape.recipe, shape.config, VOCAB, ADDED), 1, 256)
    assert trace.largest.startswith("new_empty in the loss, float32 [128, 2,304]")
    assert trace.largest_bytes == 128 * 2304 * 4


def test_int8_flops_are_those_of_the_base_and_of_the_adapters_folded_into_it() -> None:
    """By hand: 2 per weight forward and for the activations' gradient, and an adapter's forward."""
    shape, length, hidden, inner, kv, rank = Shape(False, "int8", "off", 512), 512, 128, 352, 64, 8
    trace = trace_micro_batch(meta_model(shape.recipe, shape.config, VOCAB, ADDED), 1, length)
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner
    adapters = rank * (2 * (hidden + hidden) + 2 * (hidden + kv) + 3 * (hidden + inner))
    assert trace.int8_flops == shape.layers * length * (4 * layer + 2 * adapters) < trace.flops
    plain = Shape(False, "none", "off", 512)
    assert trace_micro_batch(meta_model(plain.recipe, plain.config, VOCAB, ADDED), 1, length).int8_flops == 0


def test_flops_are_those_of_the_papers_count() -> None:
    """2 per weight forward, recomputed and for the activations' gradient; of trained ones once more;
    attention over half of the square, 2 + 2 + 5 matmuls of 2 FLOPs, the factor 1/2 for causality."""
    shape, length = Shape(False, "none", "full", 512), 512
    recipe = shape.recipe.model_copy(update={"adapter": shape.recipe.adapter.model_copy(update={"rank": 1})})
    trace = trace_micro_batch(meta_model(recipe, shape.config, VOCAB, 1), 1, length)
    hidden, inner, kv = 128, 352, 64
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner
    adapters = 2 * (hidden + hidden) + 2 * (hidden + kv) + 3 * (hidden + inner)
    layers = 3 * length * (6 * layer + 8 * adapters)
    loss = 4 * (length - 1) * hidden * VOCAB
    attention = 3 * (2 + 2 + 5) * length * length * hidden
    assert trace.flops == pytest.approx(layers + loss + attention, rel=0.01)


@pytest.mark.more
def test_the_7b_is_traced_whole_in_little_time_and_memory() -> None:
    """And its few layers say the same."""
    code = (
        "import resource, time; from persianmind.estimate.bases import base_config\n"
        "from persianmind.estimate.shapes import meta_model\n"
        "from persianmind.estimate.trace import trace_few_layers, trace_micro_batch, with_layers\n"
        "from persianmind.recipe.loading import load_recipe\n"
        "recipe = load_recipe('persianmind-7b', ['train.gradient_checkpointing=full'])\n"
        "config = base_config(recipe.base)\n"
        "make = lambda n, way: meta_model(recipe, with_layers(config, n), 32000, 9510)\n"
        "model = make(32, 'full')\n"
        "start = time.process_time(); whole = trace_micro_batch(model, 1, 2048)\n"
        "seconds = time.process_time() - start\n"
        "few = trace_few_layers(make, recipe, 32, 1, 2048)\n"
        "assert (few.peak_bytes, few.flops) == (whole.peak_bytes, whole.flops)\n"
        "assert seconds < 40, seconds\n"  # twice as much beside another test
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 1.5e9\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_recipes_of_one_name_share_no_trace() -> None:
    """Adapters of another rank have gradients of another size."""
    shape = Shape(False, "none", "full", 256)
    one = trace_micro_batch(meta_model(shape.recipe, shape.config, VOCAB, ADDED), 1, 256)
    recipe = load_recipe("persianmind-7b", ["adapter.rank=64", "train.loss_chunk_tokens=128"])
    other = trace_micro_batch(meta_model(recipe, shape.config, VOCAB, ADDED), 1, 256)
    assert other.peak_bytes > one.peak_bytes
