"""Packed attention against the dense mask that transformers makes for SDPA, forward and backward."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_causal_mask

from benchmarks.lib.train_setup import read_documents
from persianmind.model.attention import packed_attention
from persianmind.model.documents import documents_of

SEQ_LEN, HEADS, HEAD_SIZE = 2048, 16, 64
ROUNDS = 7


def attention(folder: Path) -> dict[str, Any]:
    """Medians of interleaved rounds; bytes are the peak above outputs and gradients, which both must hold."""
    lengths = _lengths(folder)
    positions = np.concatenate([np.arange(length) for length in lengths])[None]
    inputs = [torch.randn(1, HEADS, SEQ_LEN, HEAD_SIZE, requires_grad=True) for _ in range(3)]
    grad = torch.randn(1, SEQ_LEN, HEADS, HEAD_SIZE)
    sides = {"packed": _packed(positions), "dense": _dense(positions)}
    gradients = {name: _gradients(side, inputs, grad) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            started = time.perf_counter()
            side(*inputs).backward(grad)
            seconds[name].append(time.perf_counter() - started)
    peaks = {name: _peak_bytes(side, inputs, grad) for name, side in sides.items()}
    floor = 4 * sum(one.nbytes for one in inputs[:1])  # one output, three gradients
    return {
        "documents": len(lengths),
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "bytes": {name: peak - floor for name, peak in peaks.items()},
        "gradient_difference": max(
            float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients.values(), strict=True)
        ),
    }


def _lengths(folder: Path) -> list[int]:
    """Tokens of the benchmark's own documents, as many as fill a sequence."""
    _, documents = read_documents(folder)
    lengths: list[int] = []
    for document in documents:
        left = SEQ_LEN - sum(lengths)
        if not left:
            break
        lengths.append(min(left, len(document)))
    return lengths


def _packed(positions: np.ndarray[Any, Any]) -> Callable[..., Tensor]:
    documents = documents_of(positions, torch.device("cpu"))

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out, _ = packed_attention(nn.Module(), query, key, value, None, documents=documents)
        return out

    return run


def _dense(positions: np.ndarray[Any, Any]) -> Callable[..., Tensor]:
    config = LlamaConfig(hidden_size=HEADS * HEAD_SIZE, num_attention_heads=HEADS, attn_implementation="sdpa")
    module: Any = nn.Module()
    module.num_key_value_groups, module.is_causal = 1, True
    position_ids = torch.from_numpy(positions)

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mask = create_causal_mask(config, torch.empty(1, SEQ_LEN, 1), None, None, position_ids=position_ids)
        out: Tensor = sdpa_attention_forward(module, query, key, value, mask)[0]
        return out

    return run


def _gradients(side: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(side(*inputs), inputs, grad))


def _peak_bytes(side: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> int:
    for one in inputs:
        one.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        side(*inputs).backward(grad)
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak
