"""How much faster than others matmuls with an int8 base are: what a forecast takes for granted."""

from __future__ import annotations

from persianmind.estimate.gpus import GpuSpec

# The part of a GPU's peak that large matmuls get. 16 bits: cuBLAS at an RTX 3090's 350 W. int8: torch._int_mm
# and a Triton kernel on GA102 get less of theirs; a guess until `make gpu-check` has measured it.
MATMUL_RATIO, INT8_MATMUL_RATIO = 0.82, 0.55
# Of a CPU that multiplies int8 by itself, against fp32: a guess too, below the 3.9 times that torch._int_mm
# alone gets with VNNI, because rounding takes time.
CPU_SPEEDUP = 2.5


def int8_speedup(gpu: GpuSpec | None, precision: str) -> float:
    """Time of a matmul in `precision` over that of an int8 one of the same shape; 1 where int8 gains nothing.

    Args:
        gpu: None: the CPU of this machine.
    """
    if gpu is None:
        from persianmind.model.int8_matmuls import has_int8_matmuls

        return CPU_SPEEDUP if has_int8_matmuls() else 1.0
    if "int8" not in gpu.peak_flops or precision not in gpu.peak_flops:
        return 1.0
    ratio = INT8_MATMUL_RATIO / MATMUL_RATIO
    return max(1.0, ratio * gpu.peak_flops["int8"] / gpu.peak_flops[precision])
