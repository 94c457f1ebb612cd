"""Forecast, not measured: tokens/s of an RTX 3090 at Llama-2-7B, by recompute and base.

    python benchmarks/forecast_3090.py [--json FILE]

One micro-batch of 2,048 tokens with LoRA rank 8 on all projections and 9,510 new embeddings, four ranks, 64
sequences per step. Each part of it is FLOPs over a rate or bytes over the memory's bandwidth; the inputs are
the constants below, each with where it comes from. The part `levers` of `make gpu-check` measures what is
guessed here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from persianmind.estimate.gpus import find_gpu  # noqa: E402
from persianmind.estimate.int8 import INT8_MATMUL_RATIO, MATMUL_RATIO  # noqa: E402
from persianmind.estimate.links import DEFAULT_LINK, find_link  # noqa: E402
from persianmind.gpucheck.shapes import llama_2_7b  # noqa: E402

# From the planner's tables: the white paper's peaks (bf16 71.2 TFLOP/s, int8 284 TOPS, dense), 936 GB/s.
GPU, LINK = find_gpu("RTX 3090"), find_link(DEFAULT_LINK)
SHAPE = llama_2_7b()
RANKS, SEQUENCES_PER_STEP, RANK = 4, 64, 8
# The loss of an unaligned table (41,510 columns): cuBLAS falls back to slower kernels.
UNALIGNED_MATMUL_RATIO = 0.45
BANDWIDTH_RATIO = 0.85
# Attention, forward and backward: cutlass's kernel under a dense mask (an A100 took 1,343 us for 2,048 x 72 x
# 128: 37%, xformers issue 924), and a varlen kernel over documents of 600 tokens (as FlashAttention-2 says).
MASKED_RATIO, MASKED_BACKWARD_RATIO = 0.37, 0.30
VARLEN_RATIO, VARLEN_BACKWARD_RATIO = 0.55, 0.45
DOCUMENT_TOKENS = 600
# What is left of norms, rotations, activations and residuals when compiled, and of LoRA's passes when folded:
# by counting reads and writes.
FUSED_RATIO, FOLDED_RATIO = 0.4, 0.45
HOST_WAITS_MS, OPTIMIZER_MS = 3.0, 60.0
TRAINED = 19_988_480 + 2 * SHAPE.added * SHAPE.hidden_size
# Numbers of hidden size kept per token and layer: selective as persianmind/model/recompute.py counts them;
# off with varlen attention and compiled layers.
SELECTIVE_KEPT = 11.4
OFF_KEPT = 9 + 3 * SHAPE.intermediate_size / SHAPE.hidden_size
USABLE_GB = 23.0
# Beside weights and what layers keep, GB: masters, moments, fp32 sums, gradients, buckets, the loss, one
# layer at work, context and NCCL.
OTHER_GB = 4.9
WEIGHT_BYTES = {"bf16": 2.0, "nf4": 0.53, "int8": 1.0}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute. is_old: as before these levers. has_kernel: quantising within the matmul kernel."""

    name: str
    base: str = "bf16"
    recompute: str = "full"
    is_old: bool = False
    has_kernel: bool = True


WAYS = (
    Way("before: full recompute, dense mask, peft's LoRA, eager", is_old=True),
    Way("bf16, full recompute"),
    Way("bf16, selective where memory takes it", recompute="selective"),
    Way("bf16, none (does it fit?)", recompute="off"),
    Way("nf4, no recompute", base="nf4", recompute="off"),
    Way(
        "int8, no recompute, quantising in passes of their own",
        base="int8",
        recompute="off",
        has_kernel=False,
    ),
    Way("int8, no recompute, quantising and scaling in the kernels", base="int8", recompute="off"),
)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    rows = [row(way) for way in WAYS]
    print("FORECAST, not measured: tokens/s of one RTX 3090 of four, Llama-2-7B, 2,048 tokens")
    print(f"{'way':<62}{'ms':>7}{'tokens/s':>10}{'GB':>7}{'fits':>6}  ms by part")
    for one in rows:
        parts = ", ".join(f"{name} {ms:.0f}" for name, ms in one["parts_ms"].items() if ms >= 1)
        fits = "yes" if one["fits"] else "no"
        print(
            f"{one['name']:<62}{one['micro_batch_ms']:>7.0f}{one['tokens_per_s']:>10,.0f}{one['gb']:>7.1f}"
            f"{fits:>6}  {parts}"
        )
    if options.json:
        result = {"forecast": True, "measured": False, "rows": rows}
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def row(way: Way) -> dict[str, object]:
    """Milliseconds of a micro-batch by part, tokens/s of a rank, memory."""
    full_ratio, gb = _recomputed(way)
    parts = parts_ms(way, full_ratio)
    micro_batch_ms = sum(parts.values())
    accumulation = SEQUENCES_PER_STEP / RANKS
    # Gradients reduced and weights gathered, bf16, once per step; nothing of it hidden.
    exchange_ms = 1e3 * 2 * 2 * TRAINED * (RANKS - 1) / RANKS / LINK.bytes_per_s
    step_ms = accumulation * micro_batch_ms + exchange_ms + OPTIMIZER_MS
    return {
        **asdict(way),
        "full_layers": round(full_ratio * SHAPE.layers),
        "micro_batch_ms": micro_batch_ms,
        "parts_ms": parts,
        "tokens_per_s": 1e3 * accumulation * SHAPE.seq_len / step_ms,
        "gb": gb,
        "fits": gb <= USABLE_GB,
    }


def parts_ms(way: Way, full_ratio: float) -> Mapping[str, float]:
    """Full recompute adds a forward pass of its layers, selective one of what is elementwise."""
    matmul = _matmul_pass_ms(way)
    attention, attention_backward = _attention_ms(way)
    elementwise = _elementwise_ms() * (1.0 if way.is_old else FUSED_RATIO)
    lora = _lora_ms() * (1.0 if way.is_old else FOLDED_RATIO)
    again = 1.0 if way.recompute == "selective" else full_ratio
    return {
        "matmuls": matmul * (2 + full_ratio),
        "attention": attention * (1 + full_ratio) + attention_backward + (_mask_ms() if way.is_old else 0.0),
        "elementwise": elementwise * (3 + again),
        "LoRA": lora * (2.5 + full_ratio),
        "loss": _loss_ms(way),
        "quantisation": _quantisation_ms(way, full_ratio),
        "gradient sums": _ms(bytes_moved=98e6 * 10 + 2 * SHAPE.added * SHAPE.hidden_size * 8),
        "host": HOST_WAITS_MS,
    }


def _recomputed(way: Way) -> tuple[float, float]:
    """(ratio of layers that go forward twice, GB of the rank)."""
    token_bytes = SHAPE.seq_len * SHAPE.hidden_size * 2 / 1e9
    tables = (2 * (SHAPE.vocab + SHAPE.added) * SHAPE.hidden_size * 2) / 1e9
    fixed = _decoder_weights() * WEIGHT_BYTES[way.base] / 1e9 + tables + OTHER_GB
    if way.recompute == "full":
        return 1.0, fixed + SHAPE.layers * token_bytes
    if way.recompute == "off":
        return 0.0, fixed + SHAPE.layers * OFF_KEPT * token_bytes
    room = USABLE_GB - fixed - SHAPE.layers * token_bytes
    selective = min(SHAPE.layers, max(0, int(room / ((SELECTIVE_KEPT - 1) * token_bytes))))
    gb = fixed + (SHAPE.layers - selective + selective * SELECTIVE_KEPT) * token_bytes
    return 1 - selective / SHAPE.layers, gb


def _ms(flops: float = 0.0, rate: float = 1.0, bytes_moved: float = 0.0) -> float:
    return 1e3 * (flops / rate + bytes_moved / (GPU.bandwidth * BANDWIDTH_RATIO))


def _decoder_weights() -> float:
    square, inner = SHAPE.hidden_size**2, SHAPE.hidden_size * SHAPE.intermediate_size
    return float(SHAPE.layers * (4 * square + 3 * inner))


def _widths() -> int:
    """Output features of a layer's seven projections."""
    return 5 * SHAPE.hidden_size + 2 * SHAPE.intermediate_size


def _matmul_pass_ms(way: Way) -> float:
    is_int8 = way.base == "int8"
    rate = GPU.peak_flops["int8" if is_int8 else "bf16"] * (INT8_MATMUL_RATIO if is_int8 else MATMUL_RATIO)
    return _ms(2 * _decoder_weights() * SHAPE.seq_len, rate)


def _attention_ms(way: Way) -> tuple[float, float]:
    span = SHAPE.seq_len if way.is_old else DOCUMENT_TOKENS / 2  # causal within a document
    work = SHAPE.layers * SHAPE.seq_len * span * SHAPE.hidden_size
    forward, backward = (
        (MASKED_RATIO, MASKED_BACKWARD_RATIO) if way.is_old else (VARLEN_RATIO, VARLEN_BACKWARD_RATIO)
    )
    peak = GPU.peak_flops["bf16"]
    return _ms(4 * work, forward * peak), _ms(10 * work, backward * peak)


def _mask_ms() -> float:
    """The mask copied in every layer, in all three passes."""
    return _ms(bytes_moved=3 * (SHAPE.layers * 3 + 8) * SHAPE.seq_len**2)


def _elementwise_ms() -> float:
    """Two norms in fp32 steps, rope on q and k, two residuals, silu and product: one pass, eager."""
    numbers = SHAPE.hidden_size * (2 * 15 + 2 * 7 + 6) + SHAPE.intermediate_size * 5
    return _ms(bytes_moved=SHAPE.layers * 2 * SHAPE.seq_len * numbers)


def _lora_ms() -> float:
    """peft's passes of a forward: x read for A, B's output written, scaled, added."""
    numbers = _widths() * 6 + 6 * SHAPE.hidden_size + SHAPE.intermediate_size
    return _ms(bytes_moved=SHAPE.layers * 2 * SHAPE.seq_len * numbers)


def _loss_ms(way: Way) -> float:
    logits = SHAPE.seq_len * (SHAPE.vocab + SHAPE.added)
    flops = 4 * logits * SHAPE.hidden_size + 2 * SHAPE.seq_len * SHAPE.added * SHAPE.hidden_size
    ratio = UNALIGNED_MATMUL_RATIO if way.is_old else MATMUL_RATIO
    bytes_each = 2 * 2 + 4 * (11 if way.is_old else 8) + 2
    return _ms(flops, ratio * GPU.peak_flops["bf16"], logits * bytes_each)


def _quantisation_ms(way: Way, full_ratio: float) -> float:
    """nf4: all weights unpacked in each pass. int8: inputs of the projections rounded (twice read for the
    largest of a row, once written), gradients too; without a kernel of its own the int32 sums are read and
    scaled in a pass of their own."""
    if way.base == "nf4":
        return (2 + full_ratio) * _ms(bytes_moved=_decoder_weights() * (0.5 + 2))
    if way.base != "int8":
        return 0.0
    inputs, outputs = 3 * SHAPE.hidden_size + SHAPE.intermediate_size, _widths()
    per_token = (1 + full_ratio) * inputs * 5 + outputs * 5
    if not way.has_kernel:
        # The sums of a pass: written as int32 and read, scaled in fp32, written again.
        per_token += ((1 + full_ratio) * outputs + 4 * SHAPE.hidden_size + 3 * SHAPE.intermediate_size) * 14
    return _ms(bytes_moved=SHAPE.layers * SHAPE.seq_len * per_token)


if __name__ == "__main__":
    main()
