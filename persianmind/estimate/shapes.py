"""The adapted model of a recipe on the meta device, made by the training code: shapes without values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persianmind.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from persianmind.model.adapted import AdaptedModel


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Numbers of weights. base: of the base, without what its tables have beyond its tokenizer. added: new
    embeddings. adapter: of the adapters. trained: all that gets a gradient."""

    base: int
    added: int
    adapter: int
    trained: int

    @property
    def total(self) -> int:
        """Of the exported model, which has no adapters of its own."""
        return self.base + self.added


def meta_model(recipe: Recipe, config: Mapping[str, Any], base_vocab: int, added: int) -> AdaptedModel:
    """The model that trains, in the recipe's precision and quantisation, without memory behind it.

    Args:
        config: config.json of the base.
        base_vocab, added: ids of the base's tokenizer, and new ones.

    Raises:
        BaseModelError: config.json makes no model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from persianmind.estimate.nf4 import quantise_shapes
    from persianmind.model.adapted import DTYPES, adapt
    from persianmind.model.base_files import load_errors_named
    from persianmind.model.int8_loading import make_int8

    dtype = DTYPES[recipe.train.precision]
    with torch.device("meta"):
        with load_errors_named(f"base {recipe.base!r}: config.json makes no model"):
            causal_lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=dtype)
        if recipe.train.quantize == "nf4":
            quantise_shapes(causal_lm, dtype)
        elif recipe.train.quantize == "int8":
            make_int8(causal_lm)
        model = adapt(causal_lm, recipe, [[0]] * added, base_vocab)
    return model.train()


def parameter_counts(model: AdaptedModel) -> ParameterCounts:
    """The model's weights by kind; 4-bit ones are counted as weights, not as bytes."""
    from persianmind.estimate.flops import weight_count

    counts = dict.fromkeys(("base", "added", "adapter"), 0)
    for kind, value in parameters_by_kind(model):
        counts[kind] += weight_count(value)
    return ParameterCounts(**counts, trained=sum(value.numel() for value in model.trained().values()))


def parameters_by_kind(model: AdaptedModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter once, as "base", "added" (new embeddings) or "adapter". The bias of new tokens is a
    part of the base's bias."""
    new = {id(table.new_AD) for table in (model.input_table, model.output_table)}
    for name, value in model.named_parameters():
        yield ("adapter" if "lora_" in name else "added" if id(value) in new else "base"), value


def held_tensors(value: Tensor) -> Iterator[Tensor]:
    """A parameter and what belongs to it: of a 4-bit weight the constants of its blocks."""
    yield value
    state = getattr(value, "quant_state", None)
    while state is not None:
        yield from (one for one in (state.absmax, state.code, state.offset) if one is not None)
        state = state.state2


def tensor_bytes(value: torch.Tensor) -> int:
    """Bytes of a parameter with all that belongs to it."""
    return sum(one.numel() * one.element_size() for one in held_tensors(value))
