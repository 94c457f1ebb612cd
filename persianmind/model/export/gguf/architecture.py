"""What llama.cpp computes of each architecture: its name, weights and hyperparameters; the rest is refused.

llama.cpp loads a file whose model it computes only in part and says nothing, so whatever is not known here
to be computed is an error before anything is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from persianmind.common.errors import BaseModelError

logger = logging.getLogger(__name__)

_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_BUFFER = ".rotary_emb.inv_freq"  # old folders hold it; it follows from the config
INSTEAD = "export with --format hf and try llama.cpp's own convert_hf_to_gguf.py"


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """One architecture of llama.cpp.

    name: as llama.cpp has it. biases: the projections of a layer that may have a bias. head_norms: queries
    and keys are normalised. rotates_pairs: RoPE turns neighbours (2i, 2i + 1) where transformers turns
    (i, i + d/2), so rows of the query and key weights change places. ropes: the RoPE scalings it computes.
    free_head_dim: heads may be of another width than hidden_size / heads.
    """

    name: str
    biases: tuple[str, ...] = ()
    head_norms: bool = False
    rotates_pairs: bool = False
    ropes: tuple[str, ...] = ("default", "linear", "yarn")
    free_head_dim: bool = True

    def tensor_names(self, layers: int, *, tied: bool) -> tuple[dict[str, str], set[str]]:
        """(name in the Hugging Face folder -> name in the GGUF, names that may be missing)."""
        names = {name: to for name, to in _TOP.items() if not (tied and name == "lm_head.weight")}
        optional: set[str] = set()
        parts = {**_LAYER, **(_HEAD_NORMS if self.head_norms else {})}
        for layer in range(layers):
            for part, to in parts.items():
                names[f"model.layers.{layer}.{part}.weight"] = f"blk.{layer}.{to}.weight"
            for part in self.biases:
                names[f"model.layers.{layer}.{part}.bias"] = f"blk.{layer}.{parts[part]}.bias"
                optional.add(f"model.layers.{layer}.{part}.bias")
        return names, optional


_LLAMA = GgufArchitecture(
    "llama",
    biases=(*_QKV, "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    rotates_pairs=True,
    ropes=("default", "linear", "yarn", "llama3"),
)
ARCHITECTURES = {  # by model_type
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": GgufArchitecture("qwen2", biases=_QKV, free_head_dim=False),
    "qwen3": GgufArchitecture("qwen3", head_norms=True),
}


def architecture_of(config: Mapping[str, Any]) -> GgufArchitecture:
    """The architecture of a config.json.

    Raises:
        BaseModelError: one that is not written here, or a setting of it that llama.cpp does not compute.
    """
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise BaseModelError(
            f"a {kind} model is not written as GGUF (known are {', '.join(ARCHITECTURES)}); {INSTEAD}"
        )
    architecture = ARCHITECTURES[kind]
    for problem in _problems(config, architecture):
        raise BaseModelError(f"llama.cpp's {architecture.name} does not compute {problem}; {INSTEAD}")
    return architecture


def _problems(config: Mapping[str, Any], architecture: GgufArchitecture) -> Iterator[str]:
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        yield f"hidden_act={config['hidden_act']}"
    if config.get("quantization_config"):
        yield "weights that are quantised already"
    as_wide = head_dim(config) * config["num_attention_heads"] == config["hidden_size"]
    if not as_wide and not architecture.free_head_dim:
        yield f"heads of {head_dim(config)} values where hidden_size asks for another width"


def head_dim(config: Mapping[str, Any]) -> int:
    """Values per attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def tensor_map(
    architecture: GgufArchitecture, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Name in the folder -> name in the GGUF, in the folder's order.

    Raises:
        BaseModelError: a weight is missing, or there is one that llama.cpp would leave out.
    """
    tied = bool(config.get("tie_word_embeddings"))
    names, optional = architecture.tensor_names(int(config["num_hidden_layers"]), tied=tied)
    extra = [name for name in shapes if name not in names and not name.endswith(_BUFFER)]
    if tied:
        extra = [name for name in extra if name != "lm_head.weight"]
    if extra:
        raise BaseModelError(f"llama.cpp's {architecture.name} knows no weight {extra[0]!r}; {INSTEAD}")
    if missing := [name for name in names if name not in shapes and name not in optional]:
        raise BaseModelError(f"the weight {missing[0]!r} is missing; export the model again")
    return {name: names[name] for name in shapes if name in names}


def add_hyperparameters(writer: Any, config: Mapping[str, Any]) -> None:
    """Writes what config.json says of the model's shape, RoPE apart."""
    heads = int(config["num_attention_heads"])
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))


def context_length(config: Mapping[str, Any]) -> int:
    """Tokens up to which llama.cpp computes the same: up to a sliding window's width it has no effect."""
    longest = int(config["max_position_embeddings"])
    window = config.get("sliding_window")
    if config["model_type"] == "llama" or not window or not config.get("use_sliding_window", True):
        return longest
    if longest > window:
        logger.warning(
            "attention slides over %d tokens, which llama.cpp does not compute for this architecture; the "
            "GGUF states a context of %d tokens, up to which it makes no difference",
            window,
            window,
        )
    return min(longest, int(window))
