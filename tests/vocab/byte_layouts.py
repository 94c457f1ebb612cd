"""Byte-level folders in the layouts that model families publish, as layouts.py has SentencePiece's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vocab.helpers import like_llama_3, package_folder, variant
from tests.vocab.layouts import BARE, SENTENCEPIECE, template, token

_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, level]}


def _byte_folder(
    source: Path, folder: Path, change: Callable[[dict[str, Any]], None], config: dict[str, Any]
) -> Path:
    variant(source, folder, change)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for name in ("special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    return folder


def _add_after(tree: dict[str, Any], contents: list[str], **flags: bool) -> int:
    """Added tokens with ids after the vocabulary and not in it; gives the first one's id."""
    first = 1 + max(*tree["model"]["vocab"].values(), *(one["id"] for one in tree["added_tokens"]))
    tree["added_tokens"] += [token(first + i, content, **flags) for i, content in enumerate(contents)]
    return int(first)


def llama_3(source: Path, folder: Path) -> Path:
    names = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)),
             "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]  # fmt: skip

    def change(tree: dict[str, Any]) -> None:
        like_llama_3(tree)
        first = _add_after(tree, names)
        level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        processors = [level, template(names[0], first)]
        tree["post_processor"] = {"type": "Sequence", "processors": processors}

    config = {"bos_token": names[0], "eos_token": names[-1], "tokenizer_class": "PreTrainedTokenizerFast",
              "clean_up_tokenization_spaces": True}  # fmt: skip
    return _byte_folder(source, folder, change, config)


def qwen_3(source: Path, folder: Path) -> Path:
    """NFC, digits one by one, and added tokens that are not special: <think>, <tool_call>."""

    def change(tree: dict[str, Any]) -> None:
        special = {one["content"] for one in tree["added_tokens"]}
        plain = [name for name in tree["model"]["vocab"] if name not in special]
        tree["model"]["vocab"] = {name: i for i, name in enumerate(plain)}
        tree["added_tokens"] = []
        _add_after_vocab = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        tree["added_tokens"] = [token(len(plain) + i, name) for i, name in enumerate(_add_after_vocab)]
        _add_after(tree, ["<tool_call>", "</tool_call>", "<think>", "</think>"], special=False)
        tree["normalizer"] = {"type": "NFC"}
        tree["pre_tokenizer"] = _byte_level(_QWEN)
        tree["post_processor"] = {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False
        }  # fmt: skip

    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer",
              "add_bos_token": False}  # fmt: skip
    return _byte_folder(source, folder, change, config)


def command_r(source: Path, folder: Path) -> Path:
    """Cohere: named tokens first, NFC, digits one by one before GPT-2's pattern, turns at the end."""
    first = ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<EOP_TOKEN>"]
    turns = ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]

    def change(tree: dict[str, Any]) -> None:
        special = {one["content"] for one in tree["added_tokens"]}
        plain = [name for name in tree["model"]["vocab"] if name not in special]
        tree["model"]["vocab"] = {name: i for i, name in enumerate([*first, *plain])}
        tree["added_tokens"] = [token(i, name) for i, name in enumerate(first)]
        _add_after(tree, turns[:2])
        _add_after(tree, turns[2:], special=False)
        tree["normalizer"] = {"type": "NFC"}
        digits = {"type": "Digits", "individual_digits": True}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, level]}
        tree["post_processor"] = template("<BOS_TOKEN>", 5)

    config = {"bos_token": "<BOS_TOKEN>", "eos_token": turns[1], "pad_token": "<PAD>",
              "unk_token": "<UNK>", "tokenizer_class": "CohereTokenizer"}  # fmt: skip
    return _byte_folder(source, folder, change, config)


def tekken(source: Path, folder: Path, size: int = 30_000) -> Path:
    """Mistral Nemo: 1,000 special tokens first, then the first `size` ranks of tekken itself."""
    data = json.loads((package_folder("mistral_common") / "data" / "tekken_240911.json").read_text())
    letters = _letters()
    ranks = {base64.b64decode(one["token_bytes"]): one["rank"] for one in data["vocab"][:size]}
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
    names += [f"<SPECIAL_{i}>" for i in range(len(names), 1_000)]

    def spelt(piece: bytes) -> str:
        return "".join(letters[byte] for byte in piece)

    def change(tree: dict[str, Any]) -> None:
        vocab = {name: i for i, name in enumerate(names)}
        vocab.update({spelt(piece): 1_000 + rank for piece, rank in ranks.items()})
        merges = [
            [spelt(piece[:cut]), spelt(piece[cut:])]
            for piece in sorted(ranks, key=ranks.__getitem__)
            for cut in range(1, len(piece))
            if piece[:cut] in ranks and piece[cut:] in ranks
        ]
        tree["model"].update(vocab=vocab, merges=merges, ignore_merges=True)
        tree["added_tokens"] = [token(i, name) for i, name in enumerate(names)]
        tree["normalizer"], tree["pre_tokenizer"] = None, _byte_level(data["config"]["pattern"])
        tree["post_processor"] = template("<s>", 1)

    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
              "tokenizer_class": "PreTrainedTokenizerFast"}  # fmt: skip
    return _byte_folder(source, folder, change, config)


def _letters() -> dict[int, str]:
    """Byte-level's letter for each byte, as transformers has it."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return dict(bytes_to_unicode())


BYTE_LEVEL = {"llama-3": llama_3, "qwen-3": qwen_3, "command-r": command_r, "tekken": tekken}


def make_layout(name: str, source: Path, folder: Path) -> Path:
    """The base folder of a layout, or the tokenizer.model that stands for it alone.

    source: a byte-level folder whose vocabulary is taken.
    """
    if name in BARE:
        return BARE[name]
    if name in SENTENCEPIECE:
        return SENTENCEPIECE[name](folder)
    return BYTE_LEVEL[name](source, folder)
