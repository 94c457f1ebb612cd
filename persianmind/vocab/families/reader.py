"""tokenizer.json as its users read it, in two ways: text as text, and what a template wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persianmind.common.errors import VocabError
from persianmind.tokenizer import HARD_STRINGS, encode_json

# A pattern with no end to it shows on a long run of one letter that something else ends.
_RUNS = tuple(f"{letter * 60}{end}" for letter in "aA1 \n-" for end in "!b")


class JsonReader:
    """Ids and text with the tokenizers library.

    Raises:
        VocabError: the library cannot read the file, or gives up on a pattern in it.
    """

    def __init__(self, tokenizer: Any, path: Path) -> None:
        """tokenizer: a `tokenizers.Tokenizer`. path: where it is from, for messages."""
        self._tokenizer = tokenizer
        self._path = path
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # What the library gives up on is named here, not amid the corpus.
        self.encode([*HARD_STRINGS, *_RUNS])

    @classmethod
    def parse(cls, content: bytes, path: Path) -> JsonReader:
        """Reads the bytes of a tokenizer.json."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception for every kind of damage
            raise VocabError(f"{path}/tokenizer.json cannot be read: {error}") from None
        return cls(tokenizer, path)

    def encode(self, texts: Sequence[str], *, parse_special: bool = False) -> list[list[int]]:
        """Ids of each text, nothing added.

        parse_special: whether "</s>" in a text stands for that token, as in what a chat template wrote. In a
        document it is a string like any other, in training as here.
        """
        return encode_json(self._tokenizer, texts, parse_special, self._path, VocabError)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are kept."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def added(self, *, special: bool = True) -> list[str]:
        """The strings of added tokens, by id: all, or those alone that are not special."""
        tokens = [token for _, token in sorted(self._tokenizer.get_added_tokens_decoder().items())]
        return [token.content for token in tokens if special or not token.special]

    def split(self, text: str) -> list[str]:
        """The parts that the normaliser and the pre-tokenizer leave of a text, in the model's own letters."""
        normalizer, pre_tokenizer = self._tokenizer.normalizer, self._tokenizer.pre_tokenizer
        plain = normalizer.normalize_str(text) if normalizer is not None else text
        return [part for part, _ in pre_tokenizer.pre_tokenize_str(plain)]

    def merge(self, part: str) -> list[int]:
        """Ids of one such part."""
        return [token.id for token in self._tokenizer.model.tokenize(part)]
