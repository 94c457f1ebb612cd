"""config.json and generation_config.json that transformers 4 and 5, vLLM and llama.cpp read alike.

transformers 5 has rotary settings in `rope_parameters` alone, transformers 4 in `rope_theta` and
`rope_scaling`: it takes 10,000 in silence where the former is all there is. Both stand side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.model.config_limits import without_code

REPETITION_PENALTY = 1.1  # the paper's decoding, greedy


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids with a meaning. eos: ends a text. stop: at which generation stops, eos and end-of-turn among
    them. pad: None where nothing names one."""

    bos: int | None
    eos: int
    pad: int | None
    stop: Sequence[int]


def export_config(base: Path, *, vocab_size: int, dtype: str, ids: SpecialIds) -> dict[str, Any]:
    """The base's config.json with what the export changes.

    dtype: as torch names it ("bfloat16").
    """
    stated: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config: dict[str, Any] = without_code(stated)
    config |= without_code(_rope_keys(base, stated))
    config |= {"vocab_size": vocab_size, "dtype": dtype, "torch_dtype": dtype, "eos_token_id": ids.eos}
    for key, value in (("bos_token_id", ids.bos), ("pad_token_id", ids.pad)):
        if value is not None:
            config[key] = value
    return config


def generation_config(ids: SpecialIds) -> dict[str, Any]:
    """Greedy with the paper's repetition penalty, and every id at which an answer ends."""
    config: dict[str, Any] = {
        "bos_token_id": ids.bos,
        "eos_token_id": list(ids.stop),
        "pad_token_id": ids.eos if ids.pad is None else ids.pad,
        "do_sample": False,
        "repetition_penalty": REPETITION_PENALTY,
    }
    return {key: value for key, value in config.items() if value is not None}


def _rope_keys(base: Path, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings that the base was trained with here, in the words of both generations."""
    from transformers import AutoConfig

    text_config = AutoConfig.from_pretrained(base, trust_remote_code=False).get_text_config()
    parameters: dict[str, Any] | None = getattr(text_config, "rope_parameters", None)
    if not parameters:
        return {}
    return {"rope_parameters": parameters, **old_rope_keys(parameters, str(stated.get("model_type", "")))}


def old_rope_keys(parameters: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """`rope_parameters` of transformers 5 in the keys of transformers 4."""
    if isinstance(parameters.get("full_attention"), Mapping):  # a setting for each kind of layer (Gemma 3)
        local = parameters.get("sliding_attention") or {}
        keys = old_rope_keys(parameters["full_attention"], model_type)
        return keys | ({"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {})
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    partial = scaling.pop("partial_rotary_factor", None)
    keys = {"rope_theta": parameters.get("rope_theta")}
    keys["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    if partial is not None:
        keys["partial_rotary_factor"] = partial
    if model_type == "gpt_neox":
        keys |= {"rotary_emb_base": keys["rope_theta"], "rotary_pct": 1.0 if partial is None else partial}
    return keys
