"""LoRA adapters."""

from __future__ import annotations

from typing import Literal

from persianmind.recipe.section import Dimension, Positive, Ratio, Section


class Adapter(Section):
    """LoRA through peft. `targets: all-linear` means every projection of the decoder layers."""

    rank: Dimension = 8
    alpha: Positive = 16.0
    dropout: Ratio = 0.0
    targets: Literal["all-linear"] | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False
    lora_plus_ratio: Positive = 1.0
