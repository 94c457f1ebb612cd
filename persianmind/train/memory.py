"""What a rank's memory holds, kind by kind, read off the objects of a run: for metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from persianmind.estimate.meter import AllocationMeter
from persianmind.estimate.shapes import held_tensors, parameters_by_kind, tensor_bytes
from persianmind.model.documents import model_inputs
from persianmind.run.records import MemoryBytes

if TYPE_CHECKING:
    from persianmind.engine.base import Batch, Engine
    from persianmind.model.adapted import AdaptedModel


@dataclass(frozen=True, slots=True)
class MicroBatchBytes:
    """Of tensors of one micro-batch. activations: what the layers keep for the backward pass; loss: what the
    loss holds beside it at its highest."""

    activations: int
    loss: int


def measure_micro_batch(model: AdaptedModel, batch: Batch, device: torch.device) -> MicroBatchBytes:
    """Runs a micro-batch forward, its allocations counted one by one; the same on GPUs and CPUs. Random
    numbers, gradients and compiled layers are left as they are."""
    inputs = model_inputs(batch, device)
    held = [one for value in (*model.parameters(), *model.buffers()) for one in held_tensors(value)]
    held += [value for value in inputs.values() if isinstance(value, Tensor)]
    meter, kept = AllocationMeter(model, held), [0]

    def note(*_: Any) -> None:
        kept[0] = meter.peak_bytes = meter.current_bytes

    decoder: Any = model.causal_lm.get_decoder()  # type: ignore[operator]
    hook = decoder.register_forward_hook(note)
    model.train()
    try:
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            _uncompiled(model),
            meter,
        ):
            loss = model(**inputs)
            highest = meter.peak_bytes
            del loss
    finally:
        hook.remove()
    return MicroBatchBytes(kept[0], highest - kept[0])


def resized_batch(batch: Batch, seq_len: int) -> Batch:
    """A micro-batch [B, L] with sequences of another length, its documents cut or again from the first: what
    memory it takes does not depend on what stands in it."""
    times = -(-seq_len // batch["input_ids"].shape[1])
    return {
        name: np.tile(array, (1, times))[:, :seq_len] if array.ndim == 2 else array
        for name, array in batch.items()
    }


def _uncompiled(model: AdaptedModel) -> AbstractContextManager[Any]:
    """A graph would have the meter in it. Asked only where there is one: torch's compiler takes seconds to
    import, and memory."""
    if all(module._compiled_call_impl is None for module in model.modules()):
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def memory_by_kind(engine: Engine, micro_batch: MicroBatchBytes, peak_bytes: int) -> MemoryBytes:
    """By kind, on one rank.

    Args:
        peak_bytes: the highest use so far: of the GPU's tensors as torch's allocator counts them, on a CPU of
            the whole process.
    """
    model = engine.model
    tables = {
        id(value)
        for table in (model.input_table, model.output_table)
        for value in (table.base_VD, table.new_AD)
    }
    kinds = dict.fromkeys(("weights", "embeddings", "adapters"), 0)
    for kind, value in parameters_by_kind(model):
        name = "embeddings" if id(value) in tables else "adapters" if kind == "adapter" else "weights"
        kinds[name] += tensor_bytes(value)
    kinds["weights"] += storage_bytes(model.buffers())
    kinds |= {"activations": micro_batch.activations, "loss": micro_batch.loss}
    kinds["optimizer"] = storage_bytes(engine.optimizer_tensors())
    return MemoryBytes(**kinds, other=max(0, peak_bytes - sum(kinds.values())))


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Of what lies behind tensors, counted once where several share it."""
    found = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(found.values())
