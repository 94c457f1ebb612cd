"""Text to token numbers with the tokenizer folder of the run, as fast as the `tokenizers` library goes.

Documents get the begin-of-text token only where the tokenizer itself adds one, and always the end-of-text
token; both are put here, once, so that no template of the tokenizer can add a second one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from persianmind.common.checksum import hash_file, hash_text
from persianmind.common.errors import DataError
from persianmind.data.fast import fast_encoder

Tokens = npt.NDArray[np.uint32]
_IDENTITY_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class FolderTokenizer:
    """The tokenizer of a Hugging Face folder.

    vocab_size: one more than the highest id. bos_id: None where the tokenizer adds none.

    Raises:
        DataError: no tokenizer.json, or no end-of-text token.
    """

    def __init__(self, folder: Path, *, fast: bool = False) -> None:
        """fast: let documents go through gigatoken where it is installed and agrees (data/fast.py)."""
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise DataError(f"{folder} holds no tokenizer.json; give a Hugging Face tokenizer folder")
        self.folder = folder
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for what it cannot parse
            raise DataError(f"{path} is no tokenizer: {' '.join(str(error).split())}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()  # a saved truncation would drop the ends of documents in silence
        self._config = _read_json(folder / "tokenizer_config.json")
        self._special = _read_json(folder / "special_tokens_map.json")
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        self.eos_id = self._eos()
        self.bos_id = self._bos()
        pad = self._named("pad_token")
        self.pad_id = pad if pad is not None else self.eos_id
        self._encode_fast = fast_encoder(path, self.encode, self.special_tokens()) if fast else None

    def encode(self, texts: Sequence[str], *, parse_special: bool = False) -> list[list[int]]:
        """Token numbers of each text, nothing added.

        parse_special: whether "<|im_end|>" in the text stands for that token. Only for text that a template
        wrote: in a corpus it is a string like any other, and must not end a document or forge a turn.
        """
        self._tokenizer.encode_special_tokens = not parse_special
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_documents(self, texts: Sequence[str]) -> list[Tokens]:
        """Token numbers of each text as a document: begin-of-text (where wanted), text, end-of-text."""
        before = [] if self.bos_id is None else [self.bos_id]
        encode = self._encode_fast or self.encode
        return [np.array([*before, *ids, self.eos_id], dtype=np.uint32) for ids in encode(texts)]

    def special_tokens(self) -> list[str]:
        """The strings that stand for special tokens."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return sorted(token.content for token in added if token.special)

    @property
    def is_fast(self) -> bool:
        """Whether documents go through the fast path."""
        return self._encode_fast is not None

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of token numbers, special tokens shown unless skipped."""
        text: str = self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=skip_special)
        return text

    def fingerprint(self) -> str:
        """Hash of every file that tokenising hangs on."""
        paths = [self.folder / name for name in _IDENTITY_FILES]
        return hash_text(*(f"{path.name}:{hash_file(path)}" for path in paths if path.is_file()))

    def _bos(self) -> int | None:
        """`add_bos_token` where the folder states it (transformers rebuilds the template from it), else what
        the template of tokenizer.json does."""
        stated = self._config.get("add_bos_token")
        if stated is not None:
            bos = self._named("bos_token")
            return bos if stated else None
        self._tokenizer.encode_special_tokens = False
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        start = whole.index(plain[0]) if plain and plain[0] in whole else 0
        return int(whole[start - 1]) if start > 0 else None

    def _eos(self) -> int:
        eos: Any = self._named("eos_token")
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

    def _named(self, name: str) -> int | None:
        token = self._config.get(name) or self._special.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if not isinstance(content, str):
            return None
        number: int | None = self._tokenizer.token_to_id(content)
        return number


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    return value if isinstance(value, dict) else {}
