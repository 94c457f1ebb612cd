"""A micro-batch traced without values, beside the allocations of a real one as torch's profiler sees them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from persianmind.estimate.planner import with_values
from persianmind.estimate.shapes import meta_model
from persianmind.estimate.static import resident_bytes
from persianmind.estimate.trace import MicroBatchTrace, trace_few_layers, trace_micro_batch, with_layers
from persianmind.recipe import Recipe
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
    few, whole = few_and_whole(shape.recipe, shape, ADDED)
    assert few.peak_bytes == whole.peak_bytes and few.gradient_bytes == whole.gradient_bytes
    assert few.flops == whole.flops and few.int8_flops == whole.int8_flops


@pytest.mark.parametrize(
    ("adapted", "setting", "added"),
    [
        ("[4-8]", "off", 0),
        ("[4-8]", "{full_layers: 6}", 0),
        ("[4-8]", "full", ADDED),
        ("[2, 4, 6, 8]", "off", 0),
        ("[2, 4, 6, 8]", "selective", ADDED),
        ("[3-6]", "full", 0),
        ("[0, 8]", "off", ADDED),
    ],
)
def test_few_layers_are_enough_where_some_have_adapters(adapted: str, setting: str, added: int) -> None:
    """Without new embeddings no gradient comes below the lowest adapter. Not to the byte: in so narrow a
    model an adapted layer below the last one can be where most is held."""
    shape = Shape(False, "none", setting, 512, layers=9)
    few, whole = few_and_whole(of_layers(shape, adapted, added), shape, added)
    assert few.peak_bytes == pytest.approx(whole.peak_bytes, rel=0.005)
    assert few.flops == whole.flops


def test_layers_below_the_lowest_adapter_keep_nothing_where_no_embedding_is_trained() -> None:
    """Six of nine layers have adapters; what the three below them keep is there only where a gradient has to
    reach new embeddings."""
    shape = Shape(False, "none", "off", 512, layers=9)

    def peak(adapted: str, added: int) -> tuple[int, float]:
        model = meta_model(of_layers(shape, adapted, added), shape.config, VOCAB, added)
        trace = trace_micro_batch(model, 2, 512)
        return trace.peak_bytes, trace.flops

    (upper, upper_flops), (all_layers, all_flops) = peak("[3-8]", 0), peak("[0-8]", 0)
    with_embeddings, _ = peak("[3-8]", ADDED)
    assert upper < 0.8 * all_layers and upper < 0.8 * with_embeddings
    assert upper_flops < 0.9 * all_flops


def of_layers(shape: Shape, adapted: str, added: int) -> Recipe:
    changes = {"vocab.new_tokens": added, "vocab.train_size": None, "vocab.pad_token": False}
    return with_values(shape.recipe, {"adapter.layers": yaml.safe_load(adapted), **changes})


def few_and_whole(recipe: Recipe, shape: Shape, added: int) -> tuple[MicroBatchTrace, MicroBatchTrace]:
    config = shape.config
    whole = trace_micro_batch(meta_model(recipe, config, VOCAB, added), 2, 512)
    few = trace_few_layers(
        lambda layers, way, adapted: meta_model(
            with_values(recipe, {"train.gradient_checkpointing": way, "adapter.layers": adapted}),
            with_layers(config, layers),
            VOCAB,
            added,
        ),
        recipe,
        9,
        2,
        512,
    )
    return few, whole


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
        "make = lambda n, way, adapted: meta_model(recipe, with_layers(config, n), 32000, 9510)\n"
        "model = make(32, 'full', [])\n"
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
