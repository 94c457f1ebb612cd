"""Shapes of well-known bases, so that a run can be planned before anything is downloaded.

Each is the part of the repository's config.json that decides its shape, with what config.json does not say:
how many ids the tokenizer has (the table is often padded beyond them), parameters, and the bytes of the files
that are downloaded. Read as of `READ`: the figures of the configurations were compared with
Lightning-AI/litgpt's table of the same files, parameters with the model cards. Once a base is on this machine
its own config.json counts.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

READ = "2026-11"


@dataclass(frozen=True, slots=True)
class KnownBase:
    """A base by its name on the Hub.

    others: repositories of the same shape and tokenizer. vocab: ids of the tokenizer that have an embedding.
    gated: its licence has to be accepted on the Hub first. weight_bytes: of the safetensors files that are
    downloaded, 16 bits per weight.
    """

    name: str
    others: tuple[str, ...]
    config: dict[str, Any]
    vocab: int
    parameters: int
    gated: bool = False

    @property
    def weight_bytes(self) -> int:
        """Bytes of its safetensors files, 16 bits per weight."""
        return 2 * self.parameters

    @property
    def source(self) -> str:
        """Where its shape stands."""
        return f"https://huggingface.co/{self.name}/blob/main/config.json, {READ}"


def _shape(
    model_type: str, table: int, hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": table,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        **more,
    }


def _llama2(hidden: int, mlp: int, layers: int, heads: int) -> dict[str, Any]:
    return _shape(
        "llama", 32_000, hidden, mlp, layers, heads, heads,
        max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=False,
    )  # fmt: skip


def _llama3(
    hidden: int, mlp: int, layers: int, heads: int, *, tied: bool, head_dim: int, factor: float
) -> dict[str, Any]:
    return _shape(
        "llama", 128_256, hidden, mlp, layers, heads, 8,
        head_dim=head_dim, max_position_embeddings=131_072, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        rope_theta=500_000.0,
        rope_scaling={
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )  # fmt: skip


def _mistral(table: int, rope_theta: float, positions: int, window: int | None) -> dict[str, Any]:
    return _shape(
        "mistral", table, 4096, 14_336, 32, 32, 8,
        head_dim=128, max_position_embeddings=positions, sliding_window=window, rms_norm_eps=1e-5,
        rope_theta=rope_theta, tie_word_embeddings=False,
    )  # fmt: skip


def _qwen2(
    table: int, hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, *, tied: bool, positions: int
) -> dict[str, Any]:
    return _shape(
        "qwen2", table, hidden, mlp, layers, heads, kv_heads,
        max_position_embeddings=positions, rms_norm_eps=1e-6, rope_theta=1_000_000.0,
        use_sliding_window=False, tie_word_embeddings=tied,
    )  # fmt: skip


def _qwen3(hidden: int, mlp: int, layers: int, heads: int, *, tied: bool) -> dict[str, Any]:
    return _shape(
        "qwen3", 151_936, hidden, mlp, layers, heads, 8,
        head_dim=128, max_position_embeddings=40_960, rms_norm_eps=1e-6, rope_theta=1_000_000.0,
        attention_bias=False, use_sliding_window=False, tie_word_embeddings=tied,
    )  # fmt: skip


def _gemma2(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return _shape(
        "gemma2", 256_000, hidden, mlp, layers, heads, kv_heads,
        head_dim=256, max_position_embeddings=8192, rms_norm_eps=1e-6, query_pre_attn_scalar=256,
        sliding_window=4096, attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
        hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True,
    )  # fmt: skip


def _smollm2(
    hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, rope_theta: float
) -> dict[str, Any]:
    return _shape(
        "llama", 49_152, hidden, mlp, layers, heads, kv_heads,
        max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=rope_theta, tie_word_embeddings=True,
    )  # fmt: skip


_GEMMA3_1B = _shape(
    "gemma3_text", 262_144, 1152, 6912, 26, 4, 1,
    head_dim=256, max_position_embeddings=32_768, rms_norm_eps=1e-6, query_pre_attn_scalar=256,
    sliding_window=512, sliding_window_pattern=6, rope_theta=1_000_000.0, rope_local_base_freq=10_000.0,
    hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True,
)  # fmt: skip
_PHI2 = _shape(
    "phi", 51_200, 2560, 10_240, 32, 32, 32,
    max_position_embeddings=2048, layer_norm_eps=1e-5, partial_rotary_factor=0.4, rope_theta=10_000.0,
    hidden_act="gelu_new", tie_word_embeddings=False,
)  # fmt: skip

_META, _QWEN, _SMOL = "meta-llama", "Qwen", "HuggingFaceTB"
KNOWN_BASES = (
    KnownBase(
        f"{_META}/Llama-2-7b-chat-hf", (f"{_META}/Llama-2-7b-hf",),
        _llama2(4096, 11_008, 32, 32), 32_000, 6_738_415_616, gated=True,
    ),
    KnownBase(
        f"{_META}/Llama-2-13b-chat-hf", (f"{_META}/Llama-2-13b-hf",),
        _llama2(5120, 13_824, 40, 40), 32_000, 13_015_864_320, gated=True,
    ),
    KnownBase(
        f"{_META}/Llama-3.1-8B",
        (
            f"{_META}/Llama-3.1-8B-Instruct",
            f"{_META}/Meta-Llama-3.1-8B", f"{_META}/Meta-Llama-3.1-8B-Instruct",
        ),
        _llama3(4096, 14_336, 32, 32, tied=False, head_dim=128, factor=8.0),
        128_256, 8_030_261_248, gated=True,
    ),
    KnownBase(
        f"{_META}/Llama-3.2-1B", (f"{_META}/Llama-3.2-1B-Instruct",),
        _llama3(2048, 8192, 16, 32, tied=True, head_dim=64, factor=32.0), 128_256, 1_235_814_400, gated=True,
    ),
    KnownBase(
        f"{_META}/Llama-3.2-3B", (f"{_META}/Llama-3.2-3B-Instruct",),
        _llama3(3072, 8192, 28, 24, tied=True, head_dim=128, factor=32.0), 128_256, 3_212_749_824, gated=True,
    ),
    KnownBase(
        "mistralai/Mistral-7B-v0.1", ("mistralai/Mistral-7B-Instruct-v0.1",),
        _mistral(32_000, 10_000.0, 32_768, 4096), 32_000, 7_241_732_096,
    ),
    KnownBase(
        "mistralai/Mistral-7B-v0.3", ("mistralai/Mistral-7B-Instruct-v0.3",),
        _mistral(32_768, 1_000_000.0, 32_768, None), 32_768, 7_248_023_552,
    ),
    KnownBase(
        f"{_QWEN}/Qwen2.5-0.5B", (f"{_QWEN}/Qwen2.5-0.5B-Instruct",),
        _qwen2(151_936, 896, 4864, 24, 14, 2, tied=True, positions=32_768), 151_665, 494_032_768,
    ),
    KnownBase(
        f"{_QWEN}/Qwen2.5-1.5B", (f"{_QWEN}/Qwen2.5-1.5B-Instruct",),
        _qwen2(151_936, 1536, 8960, 28, 12, 2, tied=True, positions=32_768), 151_665, 1_543_714_304,
    ),
    KnownBase(
        f"{_QWEN}/Qwen2.5-7B", (f"{_QWEN}/Qwen2.5-7B-Instruct",),
        _qwen2(152_064, 3584, 18_944, 28, 28, 4, tied=False, positions=32_768), 151_665, 7_615_616_512,
    ),
    KnownBase(
        f"{_QWEN}/Qwen3-0.6B", (f"{_QWEN}/Qwen3-0.6B-Base",),
        _qwen3(1024, 3072, 28, 16, tied=True), 151_669, 596_049_920,
    ),
    KnownBase(
        f"{_QWEN}/Qwen3-4B", (f"{_QWEN}/Qwen3-4B-Base",),
        _qwen3(2560, 9728, 36, 32, tied=True), 151_669, 4_022_468_096,
    ),
    KnownBase(
        f"{_QWEN}/Qwen3-8B", (f"{_QWEN}/Qwen3-8B-Base",),
        _qwen3(4096, 12_288, 36, 32, tied=False), 151_669, 8_190_735_360,
    ),
    KnownBase(
        "google/gemma-2-2b", ("google/gemma-2-2b-it",),
        _gemma2(2304, 9216, 26, 8, 4), 256_000, 2_614_341_888, gated=True,
    ),
    KnownBase(
        "google/gemma-2-9b", ("google/gemma-2-9b-it",),
        _gemma2(3584, 14_336, 42, 16, 8), 256_000, 9_241_705_984, gated=True,
    ),
    KnownBase(
        "google/gemma-3-1b-pt", ("google/gemma-3-1b-it",),
        # Its tokenizer has one id more than its table, the image token of its larger sisters: a run leaves it
        # out.
        _GEMMA3_1B, 262_144, 999_885_952, gated=True,
    ),
    KnownBase(
        f"{_SMOL}/SmolLM2-135M", (f"{_SMOL}/SmolLM2-135M-Instruct",),
        _smollm2(576, 1536, 30, 9, 3, 100_000.0), 49_152, 134_515_008,
    ),
    KnownBase(
        f"{_SMOL}/SmolLM2-360M", (f"{_SMOL}/SmolLM2-360M-Instruct",),
        _smollm2(960, 2560, 32, 15, 5, 100_000.0), 49_152, 361_821_120,
    ),
    KnownBase(
        f"{_SMOL}/SmolLM2-1.7B", (f"{_SMOL}/SmolLM2-1.7B-Instruct",),
        _smollm2(2048, 8192, 24, 32, 32, 130_000.0), 49_152, 1_711_376_384,
    ),
    KnownBase("microsoft/phi-2", (), _PHI2, 50_295, 2_779_683_840),
)  # fmt: skip
_BY_NAME = {name: base for base in KNOWN_BASES for name in (base.name, *base.others)}


def known_base(name: str) -> KnownBase | None:
    """What is known of a base by its name on the Hub; None where nothing is."""
    return _BY_NAME.get(name)


def known_config(name: str) -> dict[str, Any] | None:
    """config.json of a known base, as far as it decides the shape; a copy."""
    base = known_base(name)
    return None if base is None else copy.deepcopy(base.config)


def vocab_size_of(name: str) -> int | None:
    """Ids of a known base's tokenizer, which new tokens come after; None where it is not known."""
    base = known_base(name)
    return None if base is None else base.vocab
