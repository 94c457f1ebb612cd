"""Byte-level BPE (Llama 3, Qwen, Tekken, Command R): tokenizer.json with vocabulary and merges appended.

BPE applies the merge of lowest rank first, so merges appended after the base's fire only when no base merge
can; and since every new piece holds bytes of a character of its script, none fires in other text.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from persianmind.common.errors import VocabError
from persianmind.language.script import Script
from persianmind.tokenizer import panics_named
from persianmind.vocab.families.base import PAD, BaseFiles, added_token, dump_json, expanded_config
from persianmind.vocab.families.reader import JsonReader
from persianmind.vocab.learn import Learned, Word


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable character for each byte: itself where it is printable, else U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    rest = (byte for byte in range(256) if byte not in table)
    return table | {byte: chr(0x100 + i) for i, byte in enumerate(rest)}


_CHARACTER_OF = byte_alphabet()
_BYTE_OF = {character: byte for byte, character in _CHARACTER_OF.items()}


def to_bytes(token: str) -> bytes | None:
    """Bytes of a byte-level token, or None for a token that is not written in the byte alphabet."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return None


def to_token(piece: bytes) -> str:
    """The byte-level spelling of bytes."""
    return "".join(_CHARACTER_OF[byte] for byte in piece)


class ByteBPE:
    """A byte-level BPE base read from tokenizer.json."""

    family: ClassVar[str] = "byte-bpe"
    description: ClassVar[str] = "byte-level BPE (Llama 3, Qwen, Tekken, Command R, SmolLM2)"
    is_independent: ClassVar[bool] = False
    joins_bytes: ClassVar[bool] = True

    def __init__(self, files: BaseFiles) -> None:
        assert files.tree is not None
        self._files = files
        self._tree = files.tree
        self.reader = JsonReader.parse(dump_json(files.tree), files.path)
        self._vocab: dict[str, int] = files.tree["model"]["vocab"]
        self._added = files.added_tokens
        self.size = max([*self._vocab.values(), *self._added]) + 1

    @classmethod
    def recognises(cls, files: BaseFiles) -> bool:
        if files.tree is None or files.kind != "BPE":
            return False
        return _has_byte_level(files.tree.get("pre_tokenizer"))

    @cached_property
    def token_bytes(self) -> Mapping[int, bytes]:
        special = set(self._added)
        found = {
            token_id: to_bytes(token) for token, token_id in self._vocab.items() if token_id not in special
        }
        return {token_id: piece for token_id, piece in found.items() if piece is not None}

    def units(self, chunks: Mapping[str, int], script: Script) -> dict[str, int]:
        units: Counter[str] = Counter()
        with panics_named(self._files.path, VocabError):
            for chunk, count in chunks.items():
                for token in self.reader.split(chunk):
                    unit = (to_bytes(token) or b"").decode("utf-8", "ignore")
                    if script.character.search(unit):
                        units[unit] += count
        return units

    def segment(self, units: Mapping[str, int]) -> dict[Word, int]:
        words: Counter[Word] = Counter()
        for unit, count in units.items():
            words[tuple(self.ids_of(unit))] += count
        return words

    def ids_of(self, text: str) -> list[int]:
        return self.byte_ids(text.encode("utf-8"))

    def byte_ids(self, token_bytes: bytes) -> list[int]:
        return self.reader.merge(to_token(token_bytes))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.reader.encode(texts)

    def decode(self, ids: Sequence[int]) -> str:
        return self.reader.decode(ids)

    def differs_itself(self, text: str) -> bool:
        return False  # there is but one file

    def files(self, learned: Learned, *, pad_token: bool) -> dict[str, bytes]:
        tree = copy.deepcopy(self._tree)
        vocab: dict[str, int] = tree["model"]["vocab"]
        # Added tokens get an entry in the vocabulary too: the tokenizers library numbers those that have
        # none after the vocabulary's end, which the new pieces have moved.
        vocab.update({token["content"]: token_id for token_id, token in self._added.items()})
        token_of = {token_id: token for token, token_id in vocab.items()}
        for token_id, (piece, _) in enumerate(learned.pieces, start=learned.first_id):
            token = to_token(piece)
            vocab[token] = token_id
            token_of[token_id] = token
        tree["model"]["vocab"] = dict(sorted(vocab.items(), key=lambda item: item[1]))
        merges = tree["model"]["merges"]
        as_text = bool(merges) and isinstance(merges[0], str)
        for left, right, _ in learned.merges:
            pair = [token_of[left], token_of[right]]
            merges.append(" ".join(pair) if as_text else pair)
        pad_id = learned.first_id + len(learned.pieces) if pad_token else None
        if pad_id is not None:
            if PAD in vocab:
                raise VocabError(f"{self._files.path} already has a {PAD} token; leave out the pad token")
            tree["model"]["vocab"][PAD] = pad_id
            tree["added_tokens"] = [*(tree.get("added_tokens") or []), added_token(pad_id, PAD)]
        config = expanded_config(self._files.config, pad_id)
        return {
            **self._files.others,
            "tokenizer.json": dump_json(tree),
            "tokenizer_config.json": dump_json(config),
        }


def _has_byte_level(node: Any) -> bool:
    """Whether a pre-tokenizer is, or is a sequence that holds, ByteLevel."""
    if not isinstance(node, dict):
        return False
    parts = node.get("pretokenizers") or []
    return node.get("type") == "ByteLevel" or any(_has_byte_level(part) for part in parts)
