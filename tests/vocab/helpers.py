"""Bases and texts for the vocabulary tests: real ones that packages carry, and variants made from them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from persianmind.language.persian import normalise
from persianmind.text.sources.package import read_package

NEW_TOKENS = 1_200


@cache
def package_texts() -> tuple[str, ...]:
    """Normalised Persian that packages carry: poems with their interpretations, interface messages."""
    records = [record for name in ("hafez", "gettext-fa") for record in read_package(name, name)]
    return tuple(normalise(str(record.fields["text"])) for record in records[::2])


def texts() -> Iterator[str]:
    return iter(package_texts())


def package_folder(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, f"{name} is not installed"
    return Path(spec.origin).parent


def mistral_model() -> Path:
    """SentencePiece BPE of 32,000 pieces with byte fallback and the identity normaliser."""
    return package_folder("mistral_common") / "data" / "tokenizer.model.v1"


def read_tree(folder: Path, name: str = "tokenizer.json") -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return tree


def variant(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a tokenizer folder with its tokenizer.json changed."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tree = read_tree(target)
    change(tree)
    (target / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    return target


def like_llama_3(tree: dict[str, Any]) -> None:
    """Special tokens after the vocabulary and not in it, Llama 3's pattern, whole words looked up first."""
    special = {token["content"] for token in tree["added_tokens"]}
    plain = [token for token in tree["model"]["vocab"] if token not in special]
    tree["model"]["vocab"] = {token: token_id for token_id, token in enumerate(plain)}
    for offset, token in enumerate(tree["added_tokens"]):
        token["id"] = len(plain) + offset
    tree["model"]["ignore_merges"] = True
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}


def like_qwen(tree: dict[str, Any]) -> None:
    """An NFC normaliser before everything else, and digits one by one."""
    tree["normalizer"] = {"type": "NFC"}
    digits = {"type": "Digits", "individual_digits": True}
    tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tree["pre_tokenizer"]]}
