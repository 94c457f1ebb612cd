"""Text to token ids with the tokenizer of a folder: ids, documents, and what identifies a tokenizer.

Documents get the begin-of-text token only where the tokenizer itself adds one, and always the end-of-text
token; both are put here, once, so that no template of the tokenizer can add a second one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from persianmind.common.checksum import hash_files
from persianmind.common.errors import DataError

Tokens = npt.NDArray[np.uint32]
Encode = Callable[[Sequence[str]], list[list[int]]]

JSON_FILE, SENTENCEPIECE_FILE = "tokenizer.json", "tokenizer.model"
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    JSON_FILE,
    SENTENCEPIECE_FILE,
    "tokenizer_config.json",
)
# What the fast path is checked on before its first use.
HARD_STRINGS = (
    "",
    " ",
    "\n\n \t\r\n",
    "می‌خواهم کتاب‌هایم را بخوانم.",
    "\u200cلبه\u200c \u200c\u200c",
    "۱۲۳۴۵۶۷۸۹۰ 1234567890 ٠١٢٣٤٥٦٧٨٩",
    "بِسْمِ اللَّهِ الرَّحْمَٰنِ الرَّحِيمِ",
    "«گیومه»؛ پرسش؟ ٪۵۰ … – — ریال ﷼ ﷲ ﷺ",
    "ژ چ پ گ ئ ؤ أ إ ة ۀ هٔ ي ك",
    "def f(x):\n    return x ** 2  # تعریف تابع\n",
    "http://example.com/?q=سلام&n=1",
    "🙂👩‍👩‍👧‍👦 \ufeff\u2028\u202eabc\u202c é e\u0301 \U0010ffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 20,
    "  two  spaces   three    four ",
    "don't I'LL we've 'tis",
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
        self._model = _open_model(folder)
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
        encode = self._encode_fast or self.encode
        return [np.array([*before, *ids, self.eos_id], dtype=np.uint32) for ids in encode(texts)]

    def special_tokens(self) -> list[str]:
        """The strings that stand for special tokens."""
        return self._model.special_tokens()

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

    def named_id(self, name: str) -> int | None:
        """The id of a token that the folder names ("bos_token", "pad_token"), None where it names none."""
        token = self._config.get(name) or self._special.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        return self._model.token_id(content) if isinstance(content, str) else None

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


class FastEncoder:
    """Encodes like `exact`, several times as fast; one document of every batch is checked.

    Text that holds a special token's string goes to `exact`: there the two mean different things.

    Raises:
        DataError: a later check found a difference; shards built before may hold wrong ids.
    """

    def __init__(self, fast: Encode, exact: Encode, special_tokens: Sequence[str]) -> None:
        self._fast, self._exact = fast, exact
        self._special = re.compile("|".join(map(re.escape, special_tokens))) if special_tokens else None
        self._batches = 0

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; strings of special tokens stand for themselves."""
        ids = self._fast(texts)
        if self._special is not None:
            for i, text in enumerate(texts):
                if self._special.search(text):
                    ids[i] = self._exact([text])[0]
        if texts:
            checked = self._batches % len(texts)
            self._batches += 1
            if ids[checked] != self._exact([texts[checked]])[0]:
                raise DataError(
                    "gigatoken gave other ids than the saved tokenizer; set data.fast_tokenizer=false, "
                    "delete the output folder and build again"
                )
        return ids


def fast_encoder(folder: Path, exact: Encode, special_tokens: Sequence[str]) -> FastEncoder | None:
    """A fast encoder for a tokenizer.json; None where gigatoken is absent, cannot read it, or differs on hard
    strings."""
    try:
        gigatoken: Any = import_module("gigatoken")
    except ImportError:
        return None
    try:
        tokenizer: Any = gigatoken.Tokenizer.from_json((folder / JSON_FILE).read_text(encoding="utf-8"))
        fast: Encode = lambda texts: tokenizer.encode_batch_list(list(texts))  # noqa: E731 - as the alias says
        encoder = FastEncoder(fast, exact, special_tokens)
        if [list(ids) for ids in encoder(HARD_STRINGS)] != exact(HARD_STRINGS):
            return None
    except Exception:  # whatever it cannot do, the ordinary tokenizer can
        return None
    return encoder


class _JsonModel:
    """tokenizer.json, read by the `tokenizers` library."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for what it cannot parse
            raise DataError(f"{path} is no tokenizer: {' '.join(str(error).split())}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()  # a saved truncation would drop the ends of documents in silence
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str], *, parse_special: bool) -> list[list[int]]:
        self._tokenizer.encode_special_tokens = not parse_special
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: list[int], *, skip_special: bool) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special))

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def special_tokens(self) -> list[str]:
        added = self._tokenizer.get_added_tokens_decoder().values()
        return sorted(token.content for token in added if token.special)

    def added_bos(self) -> int | None:
        """What the template puts before a text."""
        self._tokenizer.encode_special_tokens = False
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        start = whole.index(plain[0]) if plain and plain[0] in whole else 0
        return int(whole[start - 1]) if start > 0 else None

    def own_eos(self) -> int | None:
        """The file names none."""
        return None


class _SentencePieceModel:
    """tokenizer.model, read by SentencePiece; it never parses special tokens in text."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path} is no tokenizer: {' '.join(str(error).split())}") from None
        self.vocab_size = int(self._processor.vocab_size())

    def encode(self, texts: Sequence[str], *, parse_special: bool) -> list[list[int]]:
        ids: list[list[int]] = self._processor.encode(list(texts))
        return ids

    def decode(self, ids: list[int], *, skip_special: bool) -> str:
        return str(self._processor.decode(ids))

    def token_id(self, token: str) -> int | None:
        found = int(self._processor.piece_to_id(token))
        return found if self._processor.id_to_piece(found) == token else None

    def special_tokens(self) -> list[str]:
        ids = range(self.vocab_size)
        return sorted(str(self._processor.id_to_piece(i)) for i in ids if self._processor.is_control(i))

    def added_bos(self) -> int | None:
        """Llama's tokenizers add one wherever the model has one."""
        bos = int(self._processor.bos_id())
        return bos if bos >= 0 else None

    def own_eos(self) -> int | None:
        eos = int(self._processor.eos_id())
        return eos if eos >= 0 else None


def _open_model(folder: Path) -> _JsonModel | _SentencePieceModel:
    if (folder / JSON_FILE).is_file():
        return _JsonModel(folder / JSON_FILE)
    if (folder / SENTENCEPIECE_FILE).is_file():
        return _SentencePieceModel(folder / SENTENCEPIECE_FILE)
    raise DataError(f"{folder} holds no tokenizer.json; give a Hugging Face tokenizer folder")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    return value if isinstance(value, dict) else {}
