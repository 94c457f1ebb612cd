"""Which base models can be trained here, and how each family goes from token ids to hidden states and from
hidden states to logits.

One small table: what differs between families outside of their layers stands here, and nowhere else. Every
row is held against plain transformers by tests/model/test_families.py, and every run does the same with its
own base before step 1. Imports neither torch nor transformers: the checks before a run read config.json
alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persianmind.common.errors import BaseModelError
from persianmind.model.config_limits import check_config


@dataclass(frozen=True, slots=True)
class Family:
    """What one family does beside the plain way: embeddings as they are, logits = hidden states x table.

    scaled_embedding: its embedding module multiplies by the square root of the hidden size.
    head_bias: its output projection has a bias.
    logit_scale, logit_divisor, logit_softcap: the key of config.json with the factor on the logits, with what
    they are divided by, with the cap (cap * tanh(logits / cap)), in this order.
    inside: keys of that kind which its layers or its decoder see to.
    experts: whether it is a mixture of experts; only its attention gets adapters.
    hands_documents_on: whether its layers give their own arguments to their attention.
    """

    scaled_embedding: bool = False
    head_bias: bool = False
    logit_scale: str | None = None
    logit_divisor: str | None = None
    logit_softcap: str | None = None
    inside: tuple[str, ...] = ()
    experts: bool = False
    hands_documents_on: bool = True


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """From hidden states x table (+ bias) to logits: times `scale`, then softcap * tanh(. / softcap)."""

    scale: float = 1.0
    softcap: float | None = None


PLAIN = Family()
EXPERTS_NOTE = "mixture of experts: adapters go on its attention alone, its experts stay as they are"
_GRANITE = Family(logit_divisor="logits_scaling", inside=("embedding_multiplier",))
_GRANITE_EXPERTS = Family(logit_divisor="logits_scaling", inside=("embedding_multiplier",), experts=True)
_CAPPED_GEMMA = Family(
    scaled_embedding=True, logit_softcap="final_logit_softcapping", inside=("attn_logit_softcapping",)
)
_PLAIN_FAMILIES = (
    "llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "phi3", "gpt_neox", "olmo", "olmo2",
    "olmo3", "smollm3", "starcoder2", "glm", "glm4", "exaone4", "helium", "opt", "seed_oss", "arcee",
    "apertus", "ernie4_5", "hunyuan_v1_dense",
)  # fmt: skip
_PLAIN_EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "olmoe", "glm4_moe", "phimoe")
FAMILIES: dict[str, Family] = {  # by config.model_type
    **dict.fromkeys(_PLAIN_FAMILIES, PLAIN),
    **dict.fromkeys(("stablelm", "nemotron"), Family(hands_documents_on=False)),
    **dict.fromkeys(_PLAIN_EXPERTS, Family(experts=True)),
    "gemma": Family(scaled_embedding=True),
    "gemma2": _CAPPED_GEMMA,
    "gemma3_text": _CAPPED_GEMMA,
    "vaultgemma": _CAPPED_GEMMA,
    "phi": Family(head_bias=True),
    **dict.fromkeys(("cohere", "cohere2"), Family(logit_scale="logit_scale")),
    "granite": _GRANITE,
    "granitemoe": _GRANITE_EXPERTS,
    "granitemoeshared": _GRANITE_EXPERTS,
    "hyperclovax": Family(logit_scale="logits_scaling", inside=("embedding_multiplier",)),
}
# Those that a refusal names; docs/bases.md has all.
_WELL_KNOWN = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "granite",
    "olmo2",
)
_ENCODER_DECODER = "is an encoder-decoder, and a decoder alone is trained here"
_RECURRENT = "has recurrent or linear-attention layers, which carry one packed document into the next"
_OWN_ATTENTION = "computes its attention by itself, so that packed documents would see each other"
_CONV1D = "keeps its projections transposed, which the adapters and the export do not"
_MULTIMODAL = "is a multimodal model around its language model; use a text-only base"
# Why those that people are likely to try are refused; config.json says it of the others.
REFUSED: dict[str, str] = {
    **dict.fromkeys(("t5", "mt5", "umt5", "bart", "mbart", "pegasus", "marian"), _ENCODER_DECODER),
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "recurrent_gemma"), _RECURRENT),
    **dict.fromkeys(("jamba", "bamba", "zamba", "zamba2", "falcon_h1", "granitemoehybrid"), _RECURRENT),
    **dict.fromkeys(("lfm2", "lfm2_moe", "qwen3_next", "qwen3_5_text", "nemotron_h", "minimax"), _RECURRENT),
    **dict.fromkeys(("bloom", "falcon", "gptj"), _OWN_ATTENTION),
    "gpt2": _CONV1D,
    "gpt_oss": "has attention sinks, which packed attention cannot follow",
    **dict.fromkeys(
        ("gemma3", "gemma3n", "gemma4", "mistral3", "qwen2_vl", "qwen3_vl", "llava"), _MULTIMODAL
    ),
}
_SIZES = ("hidden_size", "intermediate_size", "ffn_dim")  # of config.json: of rows or columns of projections
_ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
# Keys of config.json that, in some family, change what lies between ids and layers or between layers and
# logits. A value of `_NEUTRAL` changes nothing.
_LOGIT_KEY = re.compile(
    r"logit|(^|_)mup|soft_?cap|lm_head|scale_emb|emb\w*_(scale|multiplier)|unpadded_vocab"
)
_HARMLESS = {"output_router_logits", "num_logits_to_keep"}
_NEUTRAL = (None, False, 1, 1.0)


def check_family(config: Mapping[str, Any], base: str, quantize: str = "none") -> Family:
    """The family of a base that can be trained, by its config.json.

    Args:
        config: config.json as a mapping.
        base: how the recipe names it, for the message.
        quantize: as `train.quantize` has it.

    Raises:
        BaseModelError: it cannot be trained here, or states numbers that no model has; the line says why.
    """
    name = str(config.get("model_type", ""))[:80] or "without a model_type"
    others = len(FAMILIES.keys() - {*_WELL_KNOWN})
    supported = f"; supported are {', '.join(_WELL_KNOWN)} and {others} others, see docs/bases.md"
    if (reason := _refusal_by_name(name, config, supported)) is None:
        check_config(config, base)
        reason = _refusal(name, config, quantize, supported)
    if reason is not None:
        raise BaseModelError(f"base {base!r}: its family ({name}) {reason}")
    return FAMILIES[name]


def _refusal_by_name(name: str, config: Mapping[str, Any], supported: str) -> str | None:
    """Why no base of this family can be trained, after its name; None where one can."""
    if name in REFUSED:
        return REFUSED[name] + supported
    if config.get("is_encoder_decoder") and name not in FAMILIES:
        return _ENCODER_DECODER + supported
    if any(isinstance(config.get(key), Mapping) for key in ("text_config", "vision_config", "audio_config")):
        return _MULTIMODAL + supported
    if name not in FAMILIES:
        return "is not one that was tried here" + supported
    return None


def _refusal(name: str, config: Mapping[str, Any], quantize: str, supported: str) -> str | None:
    """Why this base of a family cannot be trained; None where it can."""
    if other := sorted({*(config.get("layer_types") or ())} - _ATTENTION_LAYERS):
        return (
            f"has layers of the kind {other[0]} in this base, which packed training cannot follow{supported}"
        )
    family = FAMILIES[name]
    if unknown := _unknown_logit_keys(family, config):
        return (
            f"has no {unknown[0]} that training knows of, and this base's config.json sets it to "
            f"{config[unknown[0]]!r}; its loss would not be the model's own{supported}"
        )
    if "quantization_config" in config:
        return "is supported, but these weights are quantised already; give the weights in 16 or 32 bits"
    if quantize == "int8" and (odd := [key for key in _SIZES if int(config.get(key) or 0) % 8]):
        return (
            f"is supported, but {odd[0]} is {config[odd[0]]} in this base and int8 matmuls of GPUs take "
            "multiples of 8; give train.quantize=none or nf4"
        )
    if family.experts and quantize != "none":
        return (
            f"is a mixture of experts, whose experts {quantize} leaves in 16 bits; give train.quantize=none"
        )
    return None


def _unknown_logit_keys(family: Family, config: Mapping[str, Any]) -> list[str]:
    known = {family.logit_scale, family.logit_divisor, family.logit_softcap, *family.inside, *_HARMLESS}
    return sorted(
        key
        for key, value in config.items()
        if _LOGIT_KEY.search(key) and key not in known and value not in _NEUTRAL
    )


def family_of(config: Any) -> Family:
    """The family of a loaded model, by its transformers config."""
    return FAMILIES[config.model_type]


def embedding_scale(config: Any) -> float:
    """The factor that the embedding module of a loaded model has."""
    return float(config.hidden_size**0.5) if family_of(config).scaled_embedding else 1.0


def logit_transform(config: Any) -> LogitTransform:
    """What a loaded model does to hidden states x table."""
    family = family_of(config)

    def value(key: str | None) -> float | None:
        return None if key is None else getattr(config, key)

    scale, divisor = value(family.logit_scale), value(family.logit_divisor)
    factor = (1.0 if scale is None else float(scale)) / (1.0 if divisor is None else float(divisor))
    return LogitTransform(factor, value(family.logit_softcap))
