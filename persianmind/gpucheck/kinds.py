"""The ways a micro-batch can be computed on this device: attention, precision, recompute."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

from persianmind.gpucheck.shapes import LlamaShape, part_recipe
from persianmind.recipe import Recipe

RECOMPUTE = ("off", "selective", "full")


@dataclass(frozen=True, slots=True)
class NumberKind:
    """quantize: of the frozen base; precision: of everything else, and of matmuls."""

    name: str
    precision: str
    quantize: str

    @property
    def rounding(self) -> str:
        """What decides how near it is to exact arithmetic."""
        return "int8" if self.quantize == "int8" else self.precision


def number_kinds(device: torch.device) -> list[NumberKind]:
    """fp32, bf16 where this device multiplies it, nf4 over the better of the two, and int8 beside it."""
    kinds = [NumberKind("fp32", "fp32", "none")]
    best = "bf16" if multiplies_bf16(device) else "fp32"
    if best == "bf16":
        kinds.append(NumberKind("bf16", "bf16", "none"))
    kinds.append(NumberKind("nf4", best, "nf4"))
    # An int8 base asks for the same capability (int8_matmuls.TRITON_CAPABILITY).
    return [*kinds, NumberKind("int8", best, "int8")] if multiplies_bf16(device) else kinds


def multiplies_bf16(device: torch.device) -> bool:
    """From compute capability 8.0 on; on a CPU always, in software if need be."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def attentions(device: torch.device, precision: str) -> list[str]:
    """Values of train.attention that mean something here: flash-attn has no fp32."""
    has_flash = importlib.util.find_spec("flash_attn") is not None and device.type == "cuda"
    return ["auto", "sdpa", *(["flash_attention_2"] if has_flash and precision == "bf16" else [])]


def kind_recipe(shape: LlamaShape, kind: NumberKind, attention: str, recompute: str = "off") -> Recipe:
    """The recipe of one way."""
    return part_recipe(
        shape,
        f"train.precision={kind.precision}",
        f"train.quantize={kind.quantize}",
        f"train.attention={attention}",
        f"train.gradient_checkpointing={recompute}",
    )
