"""How a family of base models goes from token ids to hidden states and from hidden states to logits.

One small table: what differs between families and changes the loss stands here, and nowhere else. A family
that is not in it is taken to be as `PLAIN`: embeddings as they are, logits = hidden states x output table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Family:
    """What one family does beside the plain way.

    layers: the attribute of the decoder that holds its layers.
    """

    layers: str = "layers"


PLAIN = Family()
FAMILIES: dict[str, Family] = {}  # by config.model_type


def family_of(config: Any) -> Family:
    """The family of a base, by its config."""
    return FAMILIES.get(str(getattr(config, "model_type", "")), PLAIN)
