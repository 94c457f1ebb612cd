"""Real optimizer steps at a stated shape, by the real engine, on one rank per GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from persianmind.engine.base import Engine
from persianmind.engine.groups import GROUPS
from persianmind.engine.ranks import Ranks, ranks_from_environment
from persianmind.engine.registry import backend
from persianmind.estimate.memory import gradient_and_optimizer_bytes_per_rank
from persianmind.gpucheck.fanout import RankFailedError, run_on_ranks
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import (
    TINY,
    LlamaShape,
    llama_2_7b,
    make_causal_lm,
    packed_batch,
    part_recipe,
)
from persianmind.model.adapted import adapt
from persianmind.recipe import Recipe

HANG_TIMEOUT_S = 60.0
RATES = dict.fromkeys(GROUPS, 1e-4)
# Of the free memory; the rest is for what the estimate does not know.
FILL = 0.85
# Activations of one layer and of a chunk of the loss at the 7B's width and 2,048 tokens; a guess that only
# chooses how many layers are tried first.
WORKING_BYTES = 2_500_000_000
WEIGHT_BYTES = {"none": 2.0, "nf4": 0.53, "int8": 1.01}  # per weight, with the constants of quantised ones


@dataclass(frozen=True, slots=True)
class OpenedShape:
    """An engine around a random model of this shape, ready to step."""

    engine: Engine
    shape: LlamaShape
    ranks: Ranks
    device: torch.device


def open_shape(
    shape: LlamaShape,
    precision: str,
    quantize: str,
    look: Callable[[str, torch.device], object] = lambda moment, device: None,
    recompute: str = "full",
) -> OpenedShape:
    """Joins the process group, makes the model on this rank's device, wraps it.

    Args:
        look: called at the moments "group" (made), "model" and "engine".
    """
    ranks, engine_of = ranks_from_environment(), backend()
    engine_of.start(ranks, HANG_TIMEOUT_S, {"shape": repr(shape), "quantize": quantize})
    device = engine_of.device(ranks)
    look("group", device)
    recipe = step_recipe(shape, precision, quantize, ranks.world_size, recompute)
    torch.manual_seed(0)
    causal_lm = make_causal_lm(shape, precision, quantize, device)
    model = adapt(causal_lm, recipe, shape.pieces, shape.vocab).to(device)
    look("model", device)
    config = engine_of.resolve_config(engine_of.default_config, recipe, ranks.world_size)
    engine = engine_of.open(model, config, ranks)
    engine.set_rates(RATES)
    look("engine", device)
    return OpenedShape(engine, shape, ranks, device)


def step_recipe(
    shape: LlamaShape, precision: str, quantize: str, world_size: int, recompute: str = "full"
) -> Recipe:
    """One sequence per rank and step."""
    return part_recipe(
        shape,
        f"train.precision={precision}",
        f"train.quantize={quantize}",
        "train.micro_batch_size=1",
        f"train.global_batch_size={world_size}",
        f"train.gradient_checkpointing={recompute}",
    )


def first_shape(setting: PartSetting, quantize: str) -> LlamaShape:
    """The 7B, or as many of its layers as the smallest GPU takes by the estimate; tiny on the CPU."""
    if setting.small:
        return TINY
    free = min(torch.cuda.mem_get_info(index)[0] for index in range(setting.rank_count))
    shape = llama_2_7b()
    while shape.layers > 1 and _needed_bytes(shape, quantize, setting.rank_count) > FILL * free:
        shape = replace(shape, layers=shape.layers - 1)
    return shape


def on_fitting_shape(
    function: str, setting: PartSetting, quantize: str, *, label: str, options: Mapping[str, Any], count: int
) -> tuple[LlamaShape, list[dict[str, Any]]]:
    """Runs "module:name" on `count` ranks; with half the layers again where memory was out.

    Returns:
        (the shape that fits, each rank's values).
    """
    shape = first_shape(setting, quantize)
    while True:
        try:
            asked = {**options, "shape": asdict(shape), "quantize": quantize}
            return shape, run_on_ranks(function, setting, count, label=label, options=asked)
        except RankFailedError as error:
            if "OutOfMemory" not in str(error) or shape.layers == 1:
                raise
            shape = replace(shape, layers=shape.layers // 2)


def _needed_bytes(shape: LlamaShape, quantize: str, world_size: int) -> float:
    hidden, inner, keys = (
        shape.hidden_size,
        shape.intermediate_size,
        shape.kv_heads * shape.hidden_size // shape.heads,
    )
    layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner
    adapters = 8 * (4 * hidden + 2 * (hidden + keys) + 3 * (hidden + inner)) * shape.layers
    tables = 2 * shape.vocab * hidden
    trained = adapters + 2 * shape.added * hidden
    weights = layer * shape.layers * WEIGHT_BYTES[quantize] + 2 * (tables + trained)
    kept = 2 * shape.layers * shape.seq_len * hidden
    return weights + kept + gradient_and_optimizer_bytes_per_rank(trained, "bf16", world_size) + WORKING_BYTES


def asked_shape(setting: PartSetting) -> LlamaShape:
    """The rank's side of `on_fitting_shape`."""
    return LlamaShape(**setting.options["shape"])


def stepper(opened: OpenedShape) -> Callable[[], float]:
    """A function that does one optimizer step and returns its loss."""
    batch = packed_batch(opened.shape, 1, seed=30 + opened.ranks.rank)
    return lambda: opened.engine.step([batch]).loss
