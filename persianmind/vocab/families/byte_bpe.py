"""Byte-level BPE (Llama 3, Qwen, SmolLM2): tokenizer.json with vocabulary and merges appended.

BPE applies the merge of lowest rank first, so merges appended after the base's fire only when no base merge
can; and since every new piece holds bytes of a Persian character, none fires in other text.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from persianmind.common.errors import VocabError
from persianmind.vocab.expansion import Family
from persianmind.vocab.families.base import PAD, BaseFiles, added_token, dump_json, expanded_config
from persianmind.vocab.learn import Learned, Word
from persianmind.vocab.pieces import PERSIAN_CHARACTER


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


def to_token(surface: bytes) -> str:
    """The byte-level spelling of bytes."""
    return "".join(_CHARACTER_OF[byte] for byte in surface)


class ByteBPE:
    """A byte-level BPE base read from tokenizer.json."""

    family: Family = "byte-bpe"

    def __init__(self, files: BaseFiles) -> None:
        from tokenizers import Tokenizer

        assert files.tree is not None
        self._files = files
        self._tree = files.tree
        try:
            self._tokenizer: Any = Tokenizer.from_str(dump_json(files.tree).decode("utf-8"))
        except Exception as error:  # the library raises bare Exception for every kind of damage
            raise VocabError(f"{files.place}/tokenizer.json cannot be read: {error}") from None
        self._tokenizer.encode_special_tokens = False
        self._vocab: dict[str, int] = files.tree["model"]["vocab"]
        self._added = files.added_tokens
        self.size = max([*self._vocab.values(), *self._added]) + 1

    @cached_property
    def token_bytes(self) -> Mapping[int, bytes]:
        special = set(self._added)
        pairs = ((number, to_bytes(token)) for token, number in self._vocab.items() if number not in special)
        return {number: surface for number, surface in pairs if surface is not None}

    def units(self, chunks: Mapping[str, int]) -> dict[str, int]:
        normalizer, pre_tokenizer = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        units: Counter[str] = Counter()
        for chunk, count in chunks.items():
            plain = normalizer.normalize_str(chunk) if normalizer is not None else chunk
            for token, _ in pre_tokenizer.pre_tokenize_str(plain):
                unit = (to_bytes(token) or b"").decode("utf-8", "ignore")
                if PERSIAN_CHARACTER.search(unit):
                    units[unit] += count
        return units

    def segment(self, units: Mapping[str, int]) -> dict[Word, int]:
        words: Counter[Word] = Counter()
        for unit, count in units.items():
            words[tuple(self.ids_of(unit))] += count
        return words

    def ids_of(self, text: str) -> list[int]:
        return [token.id for token in self._tokenizer.model.tokenize(to_token(text.encode("utf-8")))]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        batch = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def files(self, learned: Learned, *, pad_token: bool) -> dict[str, bytes]:
        tree = copy.deepcopy(self._tree)
        vocab: dict[str, int] = tree["model"]["vocab"]
        # Added tokens get a place in the vocabulary too: the tokenizers library numbers those that have
        # none after the vocabulary's end, which the new pieces have moved.
        vocab.update({token["content"]: number for number, token in self._added.items()})
        token_of = {number: token for token, number in vocab.items()}
        for i, (surface, _) in enumerate(learned.pieces):
            number, token = learned.first_id + i, to_token(surface)
            vocab[token] = number
            token_of[number] = token
        tree["model"]["vocab"] = dict(sorted(vocab.items(), key=lambda item: item[1]))
        merges = tree["model"]["merges"]
        as_text = bool(merges) and isinstance(merges[0], str)
        for left, right, _ in learned.merges:
            pair = [token_of[left], token_of[right]]
            merges.append(" ".join(pair) if as_text else pair)
        pad_id = learned.first_id + len(learned.pieces) if pad_token else None
        if pad_id is not None:
            if PAD in vocab:
                raise VocabError(f"{self._files.place} already has a {PAD} token; leave out the pad token")
            tree["model"]["vocab"][PAD] = pad_id
            tree["added_tokens"] = [*(tree.get("added_tokens") or []), added_token(pad_id, PAD)]
        config = expanded_config(self._files.config, pad_id)
        return {
            **self._files.others,
            "tokenizer.json": dump_json(tree),
            "tokenizer_config.json": dump_json(config),
        }
