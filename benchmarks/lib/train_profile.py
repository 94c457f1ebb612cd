"""Where the time of one of our steps goes: self CPU time of torch's operators, by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.lib.train_parts import HANG_TIMEOUT_S, micro_batches, open_engine, steps
from benchmarks.lib.train_setup import Size, ours, packed_sequences, read_documents, recipe_of
from persianmind.engine.ranks import Ranks
from persianmind.engine.registry import backend

RECOMPUTE = "selective"
# The first class with a part of its name in the operator's has it. The adapters' small matmuls are mm too.
CLASSES = {
    "attention": ("scaled_dot_product", "flash", "varlen", "packed_attention", "document_attention"),
    "int8 matmuls": ("_int_mm", "int8"),
    "matmuls": ("mm", "bmm", "lora_projection", "linear"),
    "loss": ("softmax", "logsumexp", "nll", "cross_entropy", "gather"),
    "optimizer": ("_foreach", "adam", "addcdiv", "addcmul", "lerp"),
    "embeddings": ("embedding", "index"),
    "between ranks": ("c10d", "gloo", "allreduce", "all_reduce", "all_gather"),
    "elementwise": ("mul", "add", "silu", "pow", "mean", "sqrt", "neg", "cat", "div", "sub", "sum", "exp"),
    "copies": ("copy", "to_copy", "clone", "fill", "zero", "contiguous"),
}
STEPS = 3


def profile_step(folder: Path, size: Size, ranks: Ranks) -> dict[str, Any]:
    """Self CPU ms per step by class, and the twenty dearest operators."""
    backend().start(ranks, HANG_TIMEOUT_S)
    recipe = recipe_of(1, size, recompute=RECOMPUTE)
    engine = open_engine(ours(folder, size, recompute=RECOMPUTE), recipe, ranks)
    groups = steps(packed_sequences(read_documents(folder)[1], size.seq_len), size.micro_batch_size)
    engine.step(micro_batches(next(groups), size))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            engine.step(micro_batches(next(groups), size))
    operators = {one.key: one.self_cpu_time_total / 1e3 / STEPS for one in profiler.key_averages()}
    by_class: dict[str, float] = dict.fromkeys([*CLASSES, "other"], 0.0)
    for name, ms in operators.items():
        by_class[operator_class(name)] += ms
    dearest = sorted(operators.items(), key=lambda item: -item[1])[:20]
    return {"recompute": RECOMPUTE, "ms_by_class": by_class, "ms_by_operator": dict(dearest)}


def operator_class(name: str) -> str:
    """The class of an operator such as `aten::addmm_`."""
    found = (label for label, parts in CLASSES.items() if any(part in name.lower() for part in parts))
    return next(found, "other")
