"""LoRA adapters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from persianmind.common.errors import RecipeError
from persianmind.recipe.section import MOST, Dimension, Positive, Ratio, Section

_RANGE = re.compile(r"(-?\d{1,7})-(-?\d{1,7})?")
_HOW = "a layer's number, or a range as 16-31 or 16- (to the last); -1 is the last"
LayerNumber = Annotated[int, Field(strict=True, ge=-MOST, le=MOST)]


class Adapter(Section):
    """LoRA through peft. `targets: all-linear` means every projection of the decoder layers.

    `layers`: the decoder layers that get adapters, null for all of them; numbers from 0 and ranges with both
    ends, as [0, 16-31]. Negative ones count from the end: -1 is the last layer, -8- the last eight. peft
    calls it layers_to_transform.
    """

    rank: Dimension = 8
    alpha: Positive = 16.0
    dropout: Ratio = 0.0
    targets: Literal["all-linear"] | list[str] = "all-linear"
    layers: Annotated[list[LayerNumber | str], Field(min_length=1)] | None = None
    rslora: bool = False
    dora: bool = False
    lora_plus_ratio: Positive = 1.0

    @property
    def layers_text(self) -> str:
        """The layers that get adapters as they are asked for, for people."""
        if self.layers is None:
            return "all layers"
        items = list(map(str, self.layers))
        note = "" if all(item[0] != "-" and "--" not in item for item in items) else " (-1 is the last)"
        return f"layers {', '.join(items)}{note}"

    def layer_indices(self, layers: int) -> tuple[int, ...]:
        """The decoder layers that get adapters, each once, ascending from 0.

        Args:
            layers: of the base.

        Raises:
            RecipeError: the base has no such layer, or a range ends before it begins.
        """
        if self.layers is None:
            return tuple(range(layers))
        return tuple(sorted({index for item in self.layers for index in _indices(item, layers)}))

    @field_validator("layers", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        """One layer or one range needs no list."""
        return [value] if isinstance(value, int | str) and not isinstance(value, bool) else value

    @field_validator("layers")
    @classmethod
    def _are_ranges(cls, value: list[int | str] | None) -> list[int | str] | None:
        for item in value or ():
            if isinstance(item, str) and _RANGE.fullmatch(item) is None:
                raise ValueError(f"{item[:40]!r} names no layers; give {_HOW}")
        return value

    @model_validator(mode="after")
    def _layers_once(self) -> Self:
        """peft takes a target that is a whole name wherever it lies."""
        named = [one for one in self.targets if ".layers." in f".{one}"]
        if self.layers is not None and self.targets != "all-linear" and named:
            raise ValueError(
                f"targets names a module of one layer, {named[0]}, and `layers` would not hold for it; with "
                "`layers` give last names as q_proj"
            )
        return self


def _indices(item: int | str, layers: int) -> Iterator[int]:
    """Of one number or range.

    Raises:
        RecipeError: see `Adapter.layer_indices`.
    """
    if isinstance(item, int):
        first = last = _index(item, item, layers)
    else:
        found = _RANGE.fullmatch(item)
        assert found is not None  # the recipe was validated
        first, last = _index(int(found[1]), item, layers), _index(int(found[2] or -1), item, layers)
        if first > last:
            raise RecipeError(f"adapter.layers: {item} ends before it begins; give the lower layer first")
    yield from range(first, last + 1)


def _index(number: int, item: int | str, layers: int) -> int:
    index = number + layers if number < 0 else number
    if not 0 <= index < layers:
        of_range = "" if number == item else f" of {item}"
        raise RecipeError(
            f"adapter.layers: the base has no layer {number}{of_range}; its {layers} decoder layers are 0 to "
            f"{layers - 1}"
        )
    return index
