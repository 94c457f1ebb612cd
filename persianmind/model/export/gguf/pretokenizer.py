"""The name of a byte-level tokenizer's pre-tokenizer, found as llama.cpp's converter finds it.

llama.cpp has the pre-tokenizers built in and picks one by `tokenizer.ggml.pre`. With a wrong name a file
loads and gives the right logits for given ids, but splits text into other ids. Its converter tells tokenizers
apart by the hash of the ids of one test string. An expansion in a script that this string lacks keeps the
hash of its base. The string holds Khmer, Han and Cyrillic: for these the base's own hash counts here, and the
user is told that llama.cpp's converter will not know the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from persianmind.common.errors import BaseModelError
from persianmind.tokenizer import HARD_STRINGS
from persianmind.vocab.families.base import read_base
from persianmind.vocab.families.byte_bpe import ByteBPE

# `chktxt` of llama.cpp's converter (MIT licence), to the byte.
_TEST_STRING = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) "
    "😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 "
    "?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? "
    "I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)


@dataclass(frozen=True, slots=True)
class PreTokenizerKind:
    """A pre-tokenizer of llama.cpp.

    pattern: what a text is cut into by; None for GPT-2's, which the tokenizers library has built in.
    digits: each digit is cut off before that. whole_words: a word is looked up whole before merges put it
    together (`ignore_merges`). hashes: of the tokenizers that llama.cpp's converter knows to have it.
    """

    hashes: tuple[str, ...]
    pattern: str | None = None
    digits: bool = False
    whole_words: bool = False

    def reference(self) -> Any:
        """The same with the tokenizers library."""
        from tokenizers import Regex, pre_tokenizers

        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.pattern is None)
        parts: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if self.digits else []
        if self.pattern is not None:
            parts.append(pre_tokenizers.Split(Regex(self.pattern), "isolated"))
        return pre_tokenizers.Sequence([*parts, level])


_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Names and hashes as llama.cpp's converter has them; beside each hash the model it was taken from.
PRE_TOKENIZERS = {
    "gpt-2": PreTokenizerKind(
        ("3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454",)  # gpt2
    ),
    "smollm": PreTokenizerKind(
        ("855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249",),  # SmolLM-135M
        digits=True,
    ),
    "llama-bpe": PreTokenizerKind(
        ("0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5",),  # Meta-Llama-3-8B
        pattern=_WORDS + r"\p{N}{1,3}" + _REST,
        whole_words=True,
    ),
    "qwen2": PreTokenizerKind(
        (
            "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea",  # Qwen1.5-7B
            "d4540891389ea895b53b399da6ac824becc30f2fba0e9ddbb98f92e55ca0e97c",  # Qwen3-Embedding-0.6B
        ),
        pattern=_WORDS + r"\p{N}" + _REST,
    ),
    "deepseek-r1-qwen": PreTokenizerKind(
        (
            "b3f499bb4255f8ca19fccd664443283318f2fd2414d5e0b040fbdd0cc195d6c5",
        ),  # DeepSeek-R1-Distill-Qwen-1.5B
        pattern=_WORDS + r"\p{N}" + _REST,
    ),
    "falcon3": PreTokenizerKind(
        ("9d032fcbd5501f4a38150912590928bfb36091efb5df11b8e2124b0390e3fb1e",),  # Falcon3-7B-Base
        pattern=_WORDS + r"\p{N}{1,3}" + _REST,
        whole_words=True,
    ),
    "tekken": PreTokenizerKind(
        ("63b97e4253352e6f357cc59ea5b583e3a680eaeaf2632188c2b952de2588485e",),  # Mistral-Nemo-Base-2407
        pattern=_TEKKEN,
        whole_words=True,
    ),
}


def pre_tokenizer_hash(folder: Path) -> str:
    """llama.cpp's hash of the tokenizer.json in a folder: sha256 of the printed ids of its test string, with
    the special tokens that the tokenizer itself puts around a text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return sha256(str(tokenizer.encode(_TEST_STRING).ids).encode()).hexdigest()


def changed_hash(folder: Path, base: Path) -> str | None:
    """What the user has to know where an expansion has another hash than its base; None where it has not.

    Args:
        folder: of the expanded tokenizer.
        base: the folder it was made from.
    """
    byte_level = [
        (one / "tokenizer.json").is_file() and ByteBPE.recognises(read_base(one)) for one in (folder, base)
    ]
    if not all(byte_level):
        return None
    if pre_tokenizer_hash(folder) == pre_tokenizer_hash(base):
        return None
    return (
        "llama.cpp's own converter will not know this tokenizer: the text by whose ids it tells tokenizers "
        "apart holds Khmer, Chinese and Cyrillic, and the new tokens change these ids; `persianmind export "
        "--format gguf` writes the pre-tokenizer of the base"
    )


def pre_tokenizer_name(folder: Path, named: str | None = None, base: Path | None = None) -> str:
    """The value of `tokenizer.ggml.pre` for a byte-level tokenizer; `named` by the user where it is unknown.

    base: the folder that the tokenizer was expanded from: its hash counts where the expansion's is unknown.
    An expansion changes no rule by which text is cut.

    The hash alone is not trusted: a vocabulary without pieces of several digits has the same with and without
    a rule for digits, and only an expansion brings the difference to light. So the splits are compared too.

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
    by_hash = _known(found)
    if by_hash is None and base is not None and (base / "tokenizer.json").is_file():
        by_hash = _known(pre_tokenizer_hash(base))
    if named is None and by_hash is None:
        alike = [name for name, kind in PRE_TOKENIZERS.items() if not _difference(folder, tree, kind)]
        hint = f"it splits as {' and '.join(alike)}" if alike else "find one that splits the same"
        raise BaseModelError(
            f"{folder}: llama.cpp knows no tokenizer of this hash ({found}), so its pre-tokenizer's name "
            f"is not known; {hint}: name it with --pre-tokenizer and compare token ids"
        )
    if named is not None and by_hash not in (None, named):
        raise BaseModelError(
            f"{folder}: the pre-tokenizer is {by_hash} by its hash, not {named}; leave out --pre-tokenizer"
        )
    name = named or by_hash
    assert name is not None
    if name in PRE_TOKENIZERS and (difference := _difference(folder, tree, PRE_TOKENIZERS[name])):
        raise BaseModelError(
            f"{folder}: its tokenizer.json {difference} and llama.cpp's {name} does not; "
            "copy the base's tokenizer.json again and build the vocabulary anew"
        )
    return name


def _known(found: str) -> str | None:
    """The name that llama.cpp's converter has for a hash."""
    return next((name for name, kind in PRE_TOKENIZERS.items() if found in kind.hashes), None)


def _difference(folder: Path, tree: dict[str, Any], kind: PreTokenizerKind) -> str:
    """What the tokenizer does that `kind` does not, or ""."""
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(folder / "tokenizer.json")).pre_tokenizer
    reference = kind.reference()
    for text in (_TEST_STRING, *HARD_STRINGS):
        parts = [text[start:end] for _, (start, end) in own.pre_tokenize_str(text)]
        expected = [text[start:end] for _, (start, end) in reference.pre_tokenize_str(text)]
        if parts != expected:
            return f"cuts out {next(part for part in parts if part not in expected)!r}"
    whole_words = bool(tree["model"].get("ignore_merges"))
    return "" if whole_words == kind.whole_words else f"has ignore_merges={str(whole_words).lower()}"


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
