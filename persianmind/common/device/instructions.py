"""Instruction sets of processors that decide what pays on them; named as cpuinfo and torch name them."""

from __future__ import annotations

# Those that multiply int8 by themselves; without one, int8 matmuls are no faster than fp32.
INT8_INSTRUCTIONS = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))
