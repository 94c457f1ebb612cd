"""One micro-batch of a recipe's model, forward and backward, really run without values.

On the meta device, which our attention takes for a GPU: the varlen kernel, recomputation as the recipe has
it, the chunked loss. Nothing is computed, only shapes; a 7B takes seconds, and the process 0.5 GB.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from persianmind.estimate.meter import AllocationMeter
from persianmind.estimate.nf4 import block_constants, packed_bytes
from persianmind.estimate.shapes import held_tensors
from persianmind.estimate.time import layers_without_gradient
from persianmind.model.documents import OFFSETS_PER_SEQUENCE, Documents
from persianmind.recipe import Recipe
from persianmind.recipe.train import FullLayers, full_layer_count

if TYPE_CHECKING:
    from persianmind.model.adapted import AdaptedModel

# A model of many layers is traced with few of them: memory and FLOPs grow by the same amount with every
# layer, once there are some. tests/estimate/test_trace.py holds it against whole models, to the byte.
FEW_LAYERS = 2


@dataclass(frozen=True, slots=True)
class MicroBatchTrace:
    """Of one micro-batch.

    peak_bytes: beyond parameters and buffers, gradients of the trained weights among them. gradient_bytes: of
    these at the peak. largest, largest_bytes: the largest single tensor. flops: recomputation counted;
    int8_flops: of these, of matmuls with an int8 base.
    """

    peak_bytes: int
    gradient_bytes: int
    largest: str
    largest_bytes: int
    flops: float
    int8_flops: float

    @property
    def doubled(self) -> MicroBatchTrace:
        """With every tensor twice as wide."""
        return MicroBatchTrace(
            2 * self.peak_bytes,
            2 * self.gradient_bytes,
            self.largest,
            2 * self.largest_bytes,
            self.flops,
            self.int8_flops,
        )


def trace_micro_batch(
    model: AdaptedModel,
    sequences: int,
    seq_len: int,
    lengths: tuple[int, ...] | None = None,
    *,
    on_cpu: bool = False,
) -> MicroBatchTrace:
    """Runs the model on `sequences` packed sequences, every position a target but the last of a document.

    Args:
        model: on the meta device, which our attention takes for a GPU that has the varlen kernel.
        on_cpu: kernels as on the CPU, documents one by one, by fake tensors; torch's fused attention of GPUs
            without the varlen kernel, or in fp32, holds the same.
        lengths: of the documents, which add up to sequences x seq_len; None: one document each, the most that
            attention can have.
    """
    lengths = lengths or (seq_len,) * sequences
    host_offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    with _fake_cpu(model) if on_cpu else contextlib.nullcontext():
        return _traced(model, sequences, seq_len, lengths, host_offsets)


def _traced(
    model: AdaptedModel, sequences: int, seq_len: int, lengths: tuple[int, ...], host_offsets: torch.Tensor
) -> MicroBatchTrace:
    held = [one for value in (*model.parameters(), *model.buffers()) for one in held_tensors(value)]
    meter = AllocationMeter(model, held)
    with meter, torch.device(model.output_table.base_VD.device):
        ids = torch.zeros(sequences, seq_len, dtype=torch.long)
        positions, labels = torch.zeros_like(ids), torch.zeros_like(ids)
        unit = OFFSETS_PER_SEQUENCE * sequences
        offsets = torch.zeros(-(-len(lengths) // unit) * unit + 1, dtype=torch.int32)
        targets_N = torch.zeros(sequences * seq_len - len(lengths), dtype=torch.long)
        documents = Documents(offsets, host_offsets, lengths, seq_len)
        keys = torch.zeros(sequences, dtype=torch.long)
        loss = model(ids, positions, labels, documents=documents, targets_N=targets_N, sample_keys=keys)
        (loss * 0.5).backward()  # scaled, as the engine does
    for value in model.parameters():
        value.grad = None
    return MicroBatchTrace(
        meter.peak_bytes,
        meter.gradient_bytes,
        meter.largest,
        meter.largest_bytes,
        float(meter.flops),
        float(meter.int8_flops),
    )


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What decides the memory and the FLOPs of a decoder layer: whether it is recomputed whole, has adapters,
    and whether a gradient comes to it."""

    is_whole: bool
    is_adapted: bool
    has_gradient: bool


# (whether nothing is recomputed, the layers in order) -> trace
TracesOfFew = dict[tuple[bool, tuple[LayerKind, ...]], MicroBatchTrace]


def trace_few_layers(
    make: Callable[[int, str | FullLayers, list[int]], AdaptedModel],
    recipe: Recipe,
    layers: int,
    sequences: int,
    seq_len: int,
    *,
    on_cpu: bool = False,
    known: TracesOfFew | None = None,
) -> MicroBatchTrace:
    """What `trace_micro_batch` would give of a model of `layers` layers, from a few of few; a tenth of the
    time for a 7B. Layers of one kind each add the same.

    Args:
        make: gives the recipe's model with a number of layers, a `gradient_checkpointing`, and the layers
            that have adapters.
        known: traces of few layers that were made before, of recipes that differ in `gradient_checkpointing`
            alone; those made here are added.
    """
    known = {} if known is None else known
    is_off = recipe.train.gradient_checkpointing == "off"
    kinds = layer_kinds(recipe, layers)
    places: dict[LayerKind, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)

    def traced(chosen: Iterable[int]) -> MicroBatchTrace:
        few = tuple(kinds[place] for place in sorted(chosen))
        if (is_off, few) not in known:
            whole = FullLayers(full_layers=sum(kind.is_whole for kind in few))
            adapted = [place for place, kind in enumerate(few) if kind.is_adapted]
            model = make(len(few), "off" if is_off else whole, adapted)
            known[is_off, few] = trace_micro_batch(model, sequences, seq_len, on_cpu=on_cpu)
        return known[is_off, few]

    # The first and the last of each kind: below the lowest adapter nothing moves, and the backward pass
    # begins with the layers that it begins with.
    chosen = {place for found in places.values() for place in (found[0], found[-1])}
    few = grown = traced(chosen)
    for found in places.values():
        if len(found) > FEW_LAYERS:
            grown = _grown(grown, few, traced({*chosen, found[1]}), len(found) - FEW_LAYERS)
    return grown


def layer_kinds(recipe: Recipe, layers: int) -> list[LayerKind]:
    """The kind of each decoder layer, from the first on."""
    whole = full_layer_count(recipe.train.gradient_checkpointing, layers)
    adapted, lowest = {*recipe.adapter.layer_indices(layers)}, layers_without_gradient(recipe, layers)
    return [LayerKind(place < whole, place in adapted, place >= lowest) for place in range(layers)]


def _grown(
    start: MicroBatchTrace, less: MicroBatchTrace, more: MicroBatchTrace, times: int
) -> MicroBatchTrace:
    """The start and `times` what one more layer adds."""
    return MicroBatchTrace(
        start.peak_bytes + times * (more.peak_bytes - less.peak_bytes),
        start.gradient_bytes + times * (more.gradient_bytes - less.gradient_bytes),
        more.largest,
        more.largest_bytes,
        start.flops + times * (more.flops - less.flops),
        start.int8_flops + times * (more.int8_flops - less.int8_flops),
    )


def with_layers(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The same architecture with `count` layers; lists with an entry for each layer are cut as well."""
    layers = config["num_hidden_layers"]
    cut = {
        key: value[:count] if isinstance(value, list) and len(value) == layers else value
        for key, value in config.items()
    }
    return {**cut, "num_hidden_layers": count}


@contextlib.contextmanager
def _fake_cpu(model: AdaptedModel) -> Iterator[None]:
    """In the block the model's tensors are fake ones that say they are on the CPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    saved = [(module, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            for module, parameters, buffers in saved:
                for name, value in parameters.items():
                    module._parameters[name] = None if value is None else _on_cpu(value)
                for name, buffer in buffers.items():
                    module._buffers[name] = None if buffer is None else torch.empty_like(buffer, device="cpu")
            yield
    finally:
        for module, parameters, buffers in saved:
            module._parameters.update(parameters)
            module._buffers.update(buffers)


def _on_cpu(value: torch.nn.Parameter) -> torch.nn.Parameter:
    state = getattr(value, "quant_state", None)
    if state is None:
        return torch.nn.Parameter(torch.empty_like(value, device="cpu"), requires_grad=value.requires_grad)
    # bitsandbytes' own class of parameters cannot be a fake tensor; a plain one with its constants is enough.
    shape, device = tuple(state.shape), torch.device("cpu")
    packed: Any = torch.nn.Parameter(packed_bytes(shape, device), requires_grad=False)
    packed.quant_state = block_constants(shape, state.dtype, device)
    return packed  # type: ignore[no-any-return]
