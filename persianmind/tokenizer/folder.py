"""Text to token ids with the tokenizer of a folder: ids, documents, and what identifies a tokenizer.

Documents get the begin-of-text token only where the tokenizer itself adds one, and always the end-of-text
token; both are put here, once, so that no template of the tokenizer can add a second one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from persianmind.common.checksum import hash_files
from persianmind.common.errors import DataError
from persianmind.tokenizer.fast import fast_encoder
from persianmind.tokenizer.long_text import LONG_CHARACTERS
from persianmind.tokenizer.models import JSON_FILE, SENTENCEPIECE_FILE, LocatedTokens, Tokens, open_model

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    JSON_FILE,
    SENTENCEPIECE_FILE,
    "tokenizer_config.json",
)


def tokenizer_fingerprint(folder: Path) -> str:
    """Which tokenizer a folder holds: vocabularies, runs, checkpoints and token shards state it."""
    return hash_files(folder, TOKENIZER_FILES)


class FolderTokenizer:
    """The tokenizer of a Hugging Face folder: tokenizer.json, or else tokenizer.model (SentencePiece).

    vocab_size: one more than the highest id. bos_id: None where the tokenizer adds none to a document.

    Raises:
        DataError: neither file is there, or no end-of-text token.
    """

    def __init__(self, folder: Path, *, fast: bool = False) -> None:
        """fast: let documents go through gigatoken where it is installed and gives the same ids."""
        self.folder = folder
        self._model = open_model(folder)
        self._config = _read_json(folder / "tokenizer_config.json")
        self._special = _read_json(folder / "special_tokens_map.json")
        self.vocab_size = self._model.vocab_size
        self.eos_id = self._eos()
        self.bos_id = self._bos()
        pad = self.named_id("pad_token")
        self.pad_id = pad if pad is not None else self.eos_id
        self._encode_fast = fast_encoder(folder, self.encode, self.special_tokens()) if fast else None

    def encode(self, texts: Sequence[str], *, parse_special: bool = False) -> list[list[int]]:
        """Token ids of each text, nothing added.

        parse_special: whether "<|im_end|>" in the text stands for that token. Only for text that a template
        wrote: in a corpus it is a string like any other, and must not end a document or forge a turn.
        """
        return self._model.encode(texts, parse_special=parse_special)

    def encode_documents(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of each text as a document: begin-of-text (where wanted), text, end-of-text."""
        before = [] if self.bos_id is None else [self.bos_id]
        short = iter((self._encode_fast or self.encode)([text for text in texts if not _is_long(text)]))
        documents = []
        for text in texts:
            if _is_long(text):
                documents.append(self._model.encode_long(text, before, [self.eos_id]))
            else:
                documents.append(np.array([*before, *next(short), self.eos_id], dtype=np.uint32))
        return documents

    def encode_located(self, texts: Sequence[str]) -> list[LocatedTokens]:
        """Tokens of each text that a template wrote, special tokens parsed, and where each stands in it.

        Raises:
            DataError: the folder holds tokenizer.model alone, which parses no special tokens.
        """
        return self._model.encode_located(texts)

    def special_tokens(self) -> list[str]:
        """The strings that stand for special tokens."""
        return self._model.special_tokens()

    def parsed_tokens(self) -> dict[int, str]:
        """Tokens, by id, that are read as one wherever their string stands in what a template wrote.

        Special tokens, and those that the folder adds to its vocabulary without calling them special.
        """
        return self._model.parsed_tokens()

    def token_text(self, token_id: int) -> str | None:
        """The string of one token; None where there is no such id."""
        return self._model.token_text(token_id)

    def chat_template(self) -> str | None:
        """The Jinja source of the folder's own chat template; None where it has none."""
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        stated = self._config.get("chat_template")
        if isinstance(stated, list):  # several by name, as older folders have them
            named = {one.get("name"): one.get("template") for one in stated if isinstance(one, dict)}
            stated = named.get("default")
        return stated if isinstance(stated, str) else None

    @cached_property
    def named_tokens(self) -> dict[str, str]:
        """Strings of the tokens that the folder names, by name ("eos_token"): what templates are given."""
        names = [name for name in {**self._special, **self._config} if name.endswith("_token")]
        contents = {name: self._content(name) for name in names}
        return {name: content for name, content in contents.items() if content is not None}

    @property
    def is_fast(self) -> bool:
        """Whether documents go through the fast path."""
        return self._encode_fast is not None

    @property
    def bos_or_eos_id(self) -> int:
        """The begin-of-text token the folder names, added to documents or not; else the end-of-text token."""
        bos = self.named_id("bos_token")
        return next(one for one in (bos, self.bos_id, self.eos_id) if one is not None)

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of token ids, special tokens shown unless skipped."""
        return self._model.decode([int(i) for i in ids], skip_special=skip_special)

    def fingerprint(self) -> str:
        """`tokenizer_fingerprint` of its folder."""
        return tokenizer_fingerprint(self.folder)

    def _bos(self) -> int | None:
        """`add_bos_token` where the folder states it (transformers rebuilds the template from it), else what
        the tokenizer itself does."""
        stated = self._config.get("add_bos_token")
        if stated is not None:
            return self.named_id("bos_token") if stated else None
        return self._model.added_bos()

    def _eos(self) -> int:
        eos: Any = self.named_id("eos_token")
        if eos is None:
            eos = self._model.own_eos()
        if eos is None:
            for name in ("generation_config.json", "config.json"):
                stated = _read_json(self.folder / name).get("eos_token_id")
                eos = stated[0] if isinstance(stated, list) and stated else stated
                if isinstance(eos, int):
                    break
        if not isinstance(eos, int):
            raise DataError(
                f"{self.folder} names no end-of-text token; set eos_token in tokenizer_config.json"
            )
        return eos

    def named_id(self, name: str) -> int | None:
        """The id of a token that the folder names ("pad_token"), None where it names none."""
        content = self._content(name)
        return None if content is None else self._model.token_id(content)

    def _content(self, name: str) -> str | None:
        """The string of the token that the folder calls `name`."""
        token = self._config.get(name) or self._special.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        return content if isinstance(content, str) else None


def _is_long(text: str) -> bool:
    return len(text) > LONG_CHARACTERS


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    return value if isinstance(value, dict) else {}
