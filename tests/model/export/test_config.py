"""Configs and tokenizer files as both generations of transformers read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from persianmind.model.export.config import SpecialIds, export_config, generation_config, old_rope_keys
from persianmind.model.export.tokenizer_files import tokenizer_config, write_tokenizer

IDS = SpecialIds(bos=1, eos=9, pad=11, stop=[9, 10, 2])
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def config_of(folder: Path, **config: Any) -> dict[str, Any]:
    stated = {"model_type": "llama", "vocab_size": 100, "hidden_size": 32, "num_attention_heads": 4, **config}
    (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    return export_config(folder, vocab_size=120, dtype="bfloat16", ids=IDS)


@pytest.mark.parametrize(
    "stated",
    [
        {"rope_theta": 5e5, "rope_scaling": LLAMA3},  # written by transformers 4
        {"rope_parameters": {"rope_theta": 5e5, **LLAMA3}},  # by transformers 5
    ],
)
def test_rotary_settings_stand_in_the_keys_of_both(tmp_path: Path, stated: dict[str, Any]) -> None:
    config = config_of(tmp_path, **stated)
    assert config["rope_theta"] == 5e5 and config["rope_scaling"] == LLAMA3
    assert config["rope_parameters"] == {"rope_theta": 5e5, **LLAMA3}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == {"rope_theta": 5e5, **LLAMA3}


def test_a_base_that_states_nothing_gets_what_it_was_trained_with(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert config["rope_theta"] == 10_000.0 and config["rope_scaling"] is None


@pytest.mark.parametrize(
    ("parameters", "model_type", "keys"),
    [
        (
            {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.25},
            "gpt_neox",
            {"rope_theta": 1e4, "rope_scaling": None, "partial_rotary_factor": 0.25, "rotary_emb_base": 1e4,
             "rotary_pct": 0.25},
        ),
        (
            {
                "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
            },
            "gemma3_text",
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
             "rope_local_base_freq": 1e4},
        ),
    ],
)  # fmt: skip
def test_old_keys_of_other_families(
    parameters: dict[str, Any], model_type: str, keys: dict[str, Any]
) -> None:
    assert old_rope_keys(parameters, model_type) == keys


def test_what_is_not_true_of_the_export_is_left_out(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, auto_map={"AutoModel": "evil.Model"}, _name_or_path="/home/me/llama", eos_token_id=2,
        torch_dtype="float16", quantization_config={"load_in_4bit": True}, rms_norm_eps=1e-5,
    )  # fmt: skip
    assert not {"auto_map", "_name_or_path", "quantization_config"} & config.keys()
    assert (config["dtype"], config["torch_dtype"]) == ("bfloat16", "bfloat16")
    assert (config["vocab_size"], config["eos_token_id"], config["pad_token_id"]) == (120, 9, 11)
    assert config["rms_norm_eps"] == 1e-5


def test_generation_stops_at_every_end_and_decodes_as_the_paper() -> None:
    assert generation_config(IDS) == {
        "bos_token_id": 1,
        "eos_token_id": [9, 10, 2],
        "pad_token_id": 11,
        "do_sample": False,
        "repetition_penalty": 1.1,
    }
    bare = generation_config(SpecialIds(bos=None, eos=9, pad=None, stop=[9]))
    assert bare["pad_token_id"] == 9 and "bos_token_id" not in bare


def test_tokenizer_files_byte_for_byte_and_a_class_that_both_know(tmp_path: Path) -> None:
    vocab, out = tmp_path / "vocab", tmp_path / "out"
    vocab.mkdir()
    out.mkdir()
    stated = {
        "tokenizer_class": "TokenizersBackend",
        "backend": "tokenizers",
        "model_max_length": 10**30,
        "extra_special_tokens": ["<|x|>"],
        "auto_map": {"AutoTokenizer": "evil.Tokenizer"},
        "eos_token": "</s>",
    }
    (vocab / "tokenizer_config.json").write_text(json.dumps(stated), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer.model", "special_tokens_map.json"):
        (vocab / name).write_bytes(name.encode() + b"\r\n\x00")
    write_tokenizer(vocab, out, chat_template="{{ messages }}", max_length=512)
    for name in ("tokenizer.json", "tokenizer.model", "special_tokens_map.json"):
        assert (out / name).read_bytes() == (vocab / name).read_bytes()
    config = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config == {
        "eos_token": "</s>",
        "additional_special_tokens": ["<|x|>"],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": "{{ messages }}",
    }
    assert (out / "chat_template.jinja").read_text(encoding="utf-8") == "{{ messages }}"
    assert tokenizer_config(tmp_path / "none", chat_template="", max_length=1)["model_max_length"] == 1


CODE = {
    "auto_map": {"AutoConfig": "evil--module.Class"},
    "custom_pipelines": {"x": {"impl": "evil.py"}},
    "_auto_class": "AutoModel",
    "_name_or_path": "/home/somebody",
    "transformers_weights": "other.safetensors",
    "_attn_implementation": "evil/kernel",
    "attn_implementation": "evil/kernel",
    "experts_implementation": "evil/kernel",
    "use_kernels": True,
    "kernel_config": {"a": "evil/kernel"},
    "custom_generate": "evil/generate",
    "adapter_path": "/x",
    "trust_remote_code": True,
    "code_revision": "main",
    "quantization_config": {"quant_method": "x"},
    "processor_class": "evil/repo--module.Class",
}


def code_in(tree: Any) -> set[str]:
    """Keys of ours above, anywhere in a tree, and strings that name a class in a repository."""
    if isinstance(tree, dict):
        found = {key for key in tree if key in CODE and key != "processor_class"}
        return found.union(*map(code_in, tree.values()), set())
    if isinstance(tree, list):
        return set().union(*map(code_in, tree), set())
    return {tree} if isinstance(tree, str) and "--" in tree else set()


def test_no_code_and_no_place_of_others_is_handed_on(tmp_path: Path) -> None:
    """Also within the parts of a config; what makes the model stays."""
    nested = {"part": {**CODE, "kept": 1}, "parts": [CODE, {"kept": 2}, "evil/repo--module.Class"]}
    found = config_of(tmp_path, **CODE, **nested, hidden_act="silu")
    assert code_in({**CODE, **nested}) == (CODE.keys() - {"processor_class"}) | {
        "evil--module.Class",
        "evil/repo--module.Class",
    }
    assert code_in(found) == set()
    assert found["part"] == {"kept": 1} and found["parts"] == [{}, {"kept": 2}]
    assert found["hidden_act"] == "silu" and found["model_type"] == "llama"
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**CODE, **nested, "tokenizer_class": "evil/repo--module.Class", "add_bos_token": True})
    )
    tokens = tokenizer_config(tmp_path, chat_template="{{ 1 }}", max_length=8)
    assert code_in(tokens) == set() and tokens["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokens["add_bos_token"] is True
    assert code_in(generation_config(IDS)) == set()
