"""The name of a byte-level tokenizer's pre-tokenizer, found as llama.cpp's converter finds it.

llama.cpp has the pre-tokenizers built in and picks one by `tokenizer.ggml.pre`. With a wrong name a file
loads and gives the right logits for given ids, but splits text into other ids. Its converter tells tokenizers
apart by the hash of the ids of one test string. That string holds no Arabic script, so an expansion keeps the
hash of its base.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from persianmind.common.errors import BaseModelError

# `chktxt` of llama.cpp's converter (MIT licence), to the byte.
_TEST_STRING = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) "
    "😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 "
    "?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? "
    "I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)


@dataclass(frozen=True, slots=True)
class PreTokenizerName:
    """A pre-tokenizer of llama.cpp. whole_words: a word is looked up whole first (`ignore_merges`)."""

    name: str
    whole_words: bool = False


_LLAMA_3 = PreTokenizerName("llama-bpe", whole_words=True)
_QWEN_2 = PreTokenizerName("qwen2")
# Hashes and names as llama.cpp's converter has them; the model each was taken from beside it.
PRE_TOKENIZERS = {
    "0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5": _LLAMA_3,  # Meta-Llama-3-8B
    "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea": _QWEN_2,  # Qwen1.5-7B, Qwen2, Qwen3
    "d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c": _QWEN_2,  # Qwen3-Embedding
    "b3f499bb4255f8ca19fccd664443283318f2fd2414d5e0b040fbdd0cc195d6c5": PreTokenizerName("deepseek-r1-qwen"),
    "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249": PreTokenizerName("smollm"),
    "3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454": PreTokenizerName("gpt-2"),
    "63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e": PreTokenizerName(
        "tekken", whole_words=True
    ),  # Mistral-Nemo
    "9d032fcbd5501f4a38150912590928bfb36091efb5df11b8e2124b0390e3fb1e": PreTokenizerName(
        "falcon3", whole_words=True
    ),
    "049ecf7629871e3041641907f3de7c733e4dbfdc736f57d882ba0b0845599754": PreTokenizerName("deepseek-llm"),
    "347715f544604f9118bb75ed199f68779f423cabb20db6de6f31b908d04d7821": PreTokenizerName("deepseek-coder"),
}


def pre_tokenizer_hash(folder: Path) -> str:
    """llama.cpp's hash of the tokenizer.json in a folder: sha256 of the printed ids of its test string, with
    the special tokens that the tokenizer itself puts around a text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return sha256(str(tokenizer.encode(_TEST_STRING).ids).encode()).hexdigest()


def pre_tokenizer_name(folder: Path, named: str | None = None) -> str:
    """The value of `tokenizer.ggml.pre` for a byte-level tokenizer; `named` by the user where it is unknown.

    Raises:
        BaseModelError: the hash is unknown and no name given, the name given is another than the hash's, or
            the tokenizer does something to text that llama.cpp does not do.
    """
    tree = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for problem in _not_in_llama_cpp(tree):
        raise BaseModelError(
            f"{folder}: its tokenizer {problem}, which llama.cpp does not do; use --format hf"
        )
    found = pre_tokenizer_hash(folder)
    known = PRE_TOKENIZERS.get(found)
    if known is None:
        if named is None:
            raise BaseModelError(
                f"{folder}: no llama.cpp pre-tokenizer is known for it (hash {found}); if you know which one "
                "splits the same (gpt-2, llama-bpe, qwen2, smollm, ...), name it with --pre-tokenizer and "
                "compare token ids"
            )
        return named
    if named not in (None, known.name):
        raise BaseModelError(
            f"{folder}: the pre-tokenizer is {known.name} by its hash, not {named}; leave out --pre-tokenizer"
        )
    if bool(tree["model"].get("ignore_merges")) != known.whole_words:
        raise BaseModelError(
            f"{folder}: ignore_merges of its tokenizer.json is not as llama.cpp's {known.name} has it; "
            "copy the base's tokenizer.json again and build the vocabulary anew"
        )
    return known.name


def _not_in_llama_cpp(tree: dict[str, Any]) -> Iterator[str]:
    """What the hash does not see. NFC passes: it leaves text alone that is in NFC, as our normaliser's is."""
    normalizer = tree.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        yield f"normalises text ({normalizer.get('type')})"
    if _adds_prefix_space(tree.get("pre_tokenizer")):
        yield "puts a space before a text"


def _adds_prefix_space(node: Any) -> bool:
    if not isinstance(node, dict):
        return False
    parts = node.get("pretokenizers") or []
    return bool(node.get("add_prefix_space")) or any(_adds_prefix_space(part) for part in parts)
