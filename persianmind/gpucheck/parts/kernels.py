"""The kernels that a training step is made of, one by one at the 7B's shapes: ms and TFLOP/s."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import attentions, multiplies_bf16
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import TINY, LlamaShape, llama_2_7b, packed_batch
from persianmind.gpucheck.timing import median_ms
from persianmind.model.adapted import DTYPES
from persianmind.model.attention import IMPLEMENTATIONS, register_packed_attention
from persianmind.model.documents import documents_of
from persianmind.model.lora import add_adapters
from persianmind.model.loss import summed_cross_entropy
from persianmind.recipe import Adapter

CHUNK_TOKENS = 512


class _Kernels:
    """What all measurements share: shape, device, dtype, and where rows go."""

    def __init__(self, shape: LlamaShape, device: torch.device, precision: str, findings: Findings) -> None:
        self.shape, self.device, self.precision = shape, device, precision
        self.dtype = DTYPES[precision]
        self.findings = findings
        torch.manual_seed(0)

    def random(self, *size: int, grad: bool = False) -> Tensor:
        return torch.randn(*size, device=self.device, dtype=self.dtype).mul_(0.05).requires_grad_(grad)

    def row(self, name: str, action: Callable[[], object], flops: float) -> None:
        ms = median_ms(action, self.device)
        self.findings.append("rows", {"kernel": name, "ms": ms, "tflop_per_s": flops / (ms / 1000) / 1e12})


def measure_kernels(setting: PartSetting, findings: Findings) -> None:
    """One row for each; a kernel that gives no finite number fails the part."""
    device = setting.device
    precision = "bf16" if multiplies_bf16(device) and not setting.small else "fp32"
    kernels = _Kernels(TINY if setting.small else llama_2_7b(), device, precision, findings)
    findings.record(precision=precision, shape=repr(kernels.shape))
    _matmuls(kernels)
    for attention in attentions(device, precision):
        _attention(kernels, attention)
    _loss(kernels)
    _lora(kernels)
    rows = {row["kernel"]: row for row in findings.values["rows"]}
    findings.expect(
        "every kernel took some time", all(row["ms"] > 0 for row in rows.values()), rows=len(rows)
    )
    shown = ("matmul gate", "attention auto forward and backward", "loss forward and backward")
    findings.summarise(", ".join(f"{name} {rows[name]['tflop_per_s']:.1f} TFLOP/s" for name in shown))


def _matmuls(kernels: _Kernels) -> None:
    """x W^T of each projection, and dY W, which the backward pass does."""
    shape, tokens = kernels.shape, kernels.shape.seq_len
    keys = shape.kv_heads * shape.hidden_size // shape.heads
    sizes = {
        "query": (shape.hidden_size, shape.hidden_size),
        "key": (keys, shape.hidden_size),
        "gate": (shape.intermediate_size, shape.hidden_size),
        "down": (shape.hidden_size, shape.intermediate_size),
    }
    for name, (rows, columns) in sizes.items():
        weight, x, grad = (
            kernels.random(rows, columns),
            kernels.random(tokens, columns),
            kernels.random(tokens, rows),
        )
        flops = 2.0 * tokens * rows * columns
        kernels.row(f"matmul {name}", lambda x=x, weight=weight: x @ weight.T, flops)  # type: ignore[misc]
        kernels.row(f"matmul {name} backward", lambda grad=grad, weight=weight: grad @ weight, flops)  # type: ignore[misc]


def _attention(kernels: _Kernels, asked: str) -> None:
    """The packed attention of training, over documents of web-like length."""
    from transformers import AttentionInterface

    register_packed_attention()
    attention = AttentionInterface()[IMPLEMENTATIONS[asked]]
    shape = kernels.shape
    head_size = shape.hidden_size // shape.heads
    positions = packed_batch(shape, 1, seed=40)["position_ids"]
    documents = documents_of(positions, kernels.device)
    query = kernels.random(1, shape.heads, shape.seq_len, head_size, grad=True)
    key, value = (kernels.random(1, shape.kv_heads, shape.seq_len, head_size, grad=True) for _ in range(2))
    module = nn.Module()
    lengths = [stop - start for start, stop in pairwise([*np.flatnonzero(positions[0] == 0), shape.seq_len])]
    # Two matmuls over half of each square (causal); the backward pass does five (FlashAttention-2).
    forward = 4.0 * shape.heads * head_size * sum(int(one) ** 2 for one in lengths) / 2

    def run() -> Tensor:
        out: Tensor = attention(module, query, key, value, None, documents=documents)[0]
        return out

    def both() -> None:
        out = run()
        torch.autograd.grad(out, (query, key, value), grad_outputs=torch.ones_like(out))

    with torch.no_grad():
        kernels.row(f"attention {asked} forward", run, forward)
    kernels.row(f"attention {asked} forward and backward", both, 3.5 * forward)


def _loss(kernels: _Kernels) -> None:
    """The chunked cross-entropy over all ids; its backward pass is done with the forward one."""
    shape, tokens = kernels.shape, kernels.shape.seq_len
    hidden = kernels.random(tokens, shape.hidden_size, grad=True)
    base, new = (
        kernels.random(shape.vocab, shape.hidden_size),
        kernels.random(shape.added, shape.hidden_size, grad=True),
    )
    labels = torch.randint(0, shape.vocab + shape.added, (tokens,), device=kernels.device)
    targets_N = torch.arange(tokens, device=kernels.device)

    def both() -> None:
        loss = summed_cross_entropy(hidden, labels, base, new, chunk_tokens=CHUNK_TOKENS, targets_N=targets_N)
        torch.autograd.grad(loss, (hidden, new))

    flops = 2.0 * tokens * shape.hidden_size * (2 * shape.vocab + 3 * shape.added)
    kernels.row("loss forward and backward", both, flops)


class _Holder(nn.Module):
    """One projection where adapters look for it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Module()])
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(weight, requires_grad=False)
        self.layers[0].up_proj = linear


def _lora(kernels: _Kernels) -> None:
    """A frozen projection with its adapter, as peft computes it, beside the bare one."""
    shape, tokens, rank = kernels.shape, kernels.shape.seq_len, 8
    holder = _Holder(kernels.random(shape.intermediate_size, shape.hidden_size))
    x = kernels.random(tokens, shape.hidden_size, grad=True)
    grad = kernels.random(tokens, shape.intermediate_size)

    def both() -> None:
        projection: Any = holder.layers[0].up_proj
        trained = [value for value in projection.parameters() if value.requires_grad]
        torch.autograd.grad(projection(x), [x, *trained], grad_outputs=grad)

    plain = 4.0 * tokens * shape.intermediate_size * shape.hidden_size
    kernels.row("projection forward and backward", both, plain)
    add_adapters(holder, Adapter(rank=rank, alpha=16, dropout=0.0, targets=["up_proj"]))
    holder.to(kernels.device)
    extra = 6.0 * tokens * rank * (shape.intermediate_size + shape.hidden_size)
    kernels.row("projection with LoRA forward and backward", both, plain + extra)
