"""Rotary positions: base, scaling, and the factors of Llama 3, as llama.cpp takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from persianmind.common.errors import BaseModelError
from persianmind.model.export.gguf.architecture import INSTEAD, GgufArchitecture, head_dim

_DEFAULT_THETA = 10_000.0
# What else a scaling may say. llama.cpp derives these itself, each in its default.
_YARN_DEFAULTS = {"attention_factor": None, "mscale": None, "mscale_all_dim": None, "truncate": True}


def read_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in one form: `rope_type`, `rope_theta` and those of the scaling; of both generations of
    transformers (`rope_parameters`; before it `rope_theta` and `rope_scaling`)."""
    stated: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = stated.get("rope_theta") or config.get("rope_theta") or _DEFAULT_THETA
    kind = stated.get("rope_type") or stated.get("type") or "default"
    return {**stated, "rope_type": kind, "rope_theta": float(theta)}


def check_rope(config: Mapping[str, Any], architecture: GgufArchitecture) -> None:
    """Raises BaseModelError for positions that llama.cpp would compute otherwise."""
    rope = read_rope(config)
    problem = ""
    if any(isinstance(value, Mapping) for value in rope.values()):
        problem = "positions that differ between layers"
    elif rope["rope_type"] not in architecture.ropes:
        problem = f"rope_type={rope['rope_type']}"
    elif (rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        problem = "partial_rotary_factor"
    elif rope["rope_type"] == "yarn":
        unusual = [name for name, usual in _YARN_DEFAULTS.items() if rope.get(name, usual) != usual]
        problem = f"YaRN with {unusual[0]}={rope[unusual[0]]}" if unusual else ""
    if problem:
        raise BaseModelError(f"llama.cpp's {architecture.name} does not compute {problem}; {INSTEAD}")


def add_rope(writer: Any, config: Mapping[str, Any]) -> None:
    """Writes base and scaling."""
    import gguf

    rope = read_rope(config)
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(_original_length(config, rope)))
        writer.add_rope_scaling_yarn_beta_fast(float(rope.get("beta_fast") or 32))
        writer.add_rope_scaling_yarn_beta_slow(float(rope.get("beta_slow") or 1))


def _original_length(config: Mapping[str, Any], rope: Mapping[str, Any]) -> int:
    return int(rope.get("original_max_position_embeddings") or config["max_position_embeddings"])


def rope_factors(config: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """What each frequency is divided by, fp32 [head_dim / 2]: Llama 3.1's scaling; None for every other.

    Short waves stay, long ones are stretched by `factor`, those between by a blend of the two.
    """
    rope = read_rope(config)
    if rope["rope_type"] != "llama3":
        return None
    width = head_dim(config)
    frequencies = rope["rope_theta"] ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    original, factor = _original_length(config, rope), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = original * frequencies / (2 * math.pi)  # of each wave within the original length
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return np.asarray(1.0 / ((1.0 - blend) / factor + blend), dtype=np.float32)
