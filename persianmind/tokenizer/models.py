"""What makes a tokenizer folder's ids: tokenizer.json (`tokenizers`), or tokenizer.model (SentencePiece)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from persianmind.common.errors import DataError, PersianMindError
from persianmind.common.progress import count_work
from persianmind.tokenizer.long_text import Located, encode_long
from persianmind.tokenizer.panic import panics_named

TEXTS_PER_CALL = 256  # then it is known that work goes on

Tokens = npt.NDArray[np.uint32]

JSON_FILE, SENTENCEPIECE_FILE = "tokenizer.json", "tokenizer.model"
# Both are read whole, into several times their size; the largest of well-known bases has 33 MB.
MAX_TOKENIZER_BYTES = 256 << 20
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]+\r?\n")


def is_tiktoken(model: bytes) -> bool:
    """Whether a tokenizer.model is tiktoken's: lines of a token in base64 and its rank."""
    return _TIKTOKEN_LINE.match(model) is not None


def tiktoken_hint(path: Path) -> str:
    """What to say of such a file."""
    return (
        f"{path}: tokenizer.model is tiktoken's (base64 lines, as Meta publishes Llama 3's), not "
        "SentencePiece's; give the Hugging Face folder of the same model, which holds tokenizer.json"
    )


def check_tokenizer_size(path: Path, error: type[PersianMindError]) -> None:
    """Whether a tokenizer's file is one that is read.

    Raises:
        PersianMindError: an `error` that says its size, where it is larger than any tokenizer's.
    """
    if (size := path.stat().st_size) > MAX_TOKENIZER_BYTES:
        raise error(
            f"{path} has {size:,} bytes, and at most {MAX_TOKENIZER_BYTES:,} are read of a tokenizer; copy "
            "the folder again"
        )


class LocatedTokens:
    """The tokens of one text, and which characters of it each is of.

    ids: uint32, shape (n,).
    """

    def __init__(self, encoding: Any) -> None:
        """encoding: what `tokenizers` gives; only single places are asked of it, which is cheap."""
        self._encoding = encoding
        self.ids: Tokens = np.array(encoding.ids, dtype=np.uint32)

    def token_at(self, character: int) -> int | None:
        """The first token that is of this character; None where the tokenizer's normaliser removed it."""
        found: int | None = self._encoding.char_to_token(character)
        return found

    def starts_at(self, token: int) -> int:
        """The first character of a token; of a character in several tokens, each begins with it."""
        return int(self._encoding.token_to_chars(token)[0])


def encode_json(
    tokenizer: Any, texts: Sequence[str], parse_special: bool, where: Path, error: type[PersianMindError]
) -> list[list[int]]:
    """Ids of each text by a `tokenizers.Tokenizer`, nothing added.

    Args:
        parse_special: whether "</s>" in a text stands for that token.
        where, error: of a panic, see `panics_named`.
    """
    tokenizer.encode_special_tokens = not parse_special
    ids: list[list[int]] = []
    for start in range(0, len(texts), TEXTS_PER_CALL):
        some = list(texts[start : start + TEXTS_PER_CALL])
        with panics_named(where, error):
            ids += [one.ids for one in tokenizer.encode_batch_fast(some, add_special_tokens=False)]
        count_work(len(some))
    return ids


class JsonModel:
    """tokenizer.json, read by the `tokenizers` library."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._path = path
        check_tokenizer_size(path, DataError)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for what it cannot parse
            raise DataError(f"{path} is no tokenizer: {' '.join(str(error).split())}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()  # a saved truncation would drop the ends of documents in silence
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        with panics_named(path, DataError):
            self._bos = self._added_bos()
        # It adds nothing to what is encoded here, and ByteLevel's takes the space off a token's offsets.
        self._tokenizer.post_processor = None

    def encode(self, texts: Sequence[str], *, parse_special: bool) -> list[list[int]]:
        return encode_json(self._tokenizer, texts, parse_special, self._path, DataError)

    def encode_long(self, text: str, before: Sequence[int] = (), after: Sequence[int] = ()) -> Tokens:
        """`encode` of one text, special tokens not parsed, in bounded memory; these ids around its own."""
        self._tokenizer.encode_special_tokens = True

        def piece(part: str) -> Located:
            with panics_named(self._path, DataError):
                encoding = self._tokenizer.encode(part, add_special_tokens=False)
            offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            return encoding.ids, offsets[:, 0], offsets[:, 1]

        return encode_long(text, piece, before=before, after=after)

    def encode_located(self, texts: Sequence[str]) -> list[LocatedTokens]:
        self._tokenizer.encode_special_tokens = False
        with panics_named(self._path, DataError):
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [LocatedTokens(one) for one in encodings]

    def decode(self, ids: list[int], *, skip_special: bool) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special))

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def token_text(self, token_id: int) -> str | None:
        found: str | None = self._tokenizer.id_to_token(token_id)
        return found

    def special_tokens(self) -> list[str]:
        added = self._tokenizer.get_added_tokens_decoder().values()
        return sorted(token.content for token in added if token.special)

    def parsed_tokens(self) -> dict[int, str]:
        """Special or not: `tokenizers` reads all that are added as one token wherever they stand."""
        added = self._tokenizer.get_added_tokens_decoder().items()
        return {int(token_id): str(token.content) for token_id, token in added}

    def added_bos(self) -> int | None:
        """What the post-processor puts before a text."""
        return self._bos

    def _added_bos(self) -> int | None:
        self._tokenizer.encode_special_tokens = False
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        start = whole.index(plain[0]) if plain and plain[0] in whole else 0
        return int(whole[start - 1]) if start > 0 else None

    def own_eos(self) -> int | None:
        """The file names none."""
        return None


class SentencePieceModel:
    """tokenizer.model, read by SentencePiece; it never parses special tokens in text."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        check_tokenizer_size(path, DataError)
        try:
            self._processor = SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            if path.is_file() and is_tiktoken(path.read_bytes()):
                raise DataError(tiktoken_hint(path)) from None
            raise DataError(f"{path} is no tokenizer: {' '.join(str(error).split())}") from None
        self._path = path
        self.vocab_size = int(self._processor.vocab_size())

    def encode(self, texts: Sequence[str], *, parse_special: bool) -> list[list[int]]:
        ids: list[list[int]] = self._processor.encode(list(texts))
        return ids

    def encode_long(self, text: str, before: Sequence[int] = (), after: Sequence[int] = ()) -> Tokens:
        """`encode` of one text in bounded memory; these ids around its own."""

        def piece(part: str) -> Located:
            found = self._processor.encode(part, out_type="offset_mapping")
            offsets = np.array(found["offsets"], dtype=np.int64).reshape(-1, 2)
            return found["ids"], offsets[:, 0], offsets[:, 1]

        return encode_long(text, piece, before=before, after=after)

    def encode_located(self, texts: Sequence[str]) -> list[LocatedTokens]:
        raise DataError(
            f"{self._path.parent} holds tokenizer.model alone, which reads no special tokens in text; make "
            f"its tokenizer.json first: persianmind vocab build --base {self._path.parent} --text CORPUS "
            "--new-tokens 0 --out DIR"
        )

    def decode(self, ids: list[int], *, skip_special: bool) -> str:
        return str(self._processor.decode(ids))

    def token_id(self, token: str) -> int | None:
        found = int(self._processor.piece_to_id(token))
        return found if self._processor.id_to_piece(found) == token else None

    def token_text(self, token_id: int) -> str | None:
        return str(self._processor.id_to_piece(token_id)) if 0 <= token_id < self.vocab_size else None

    def special_tokens(self) -> list[str]:
        ids = range(self.vocab_size)
        return sorted(str(self._processor.id_to_piece(i)) for i in ids if self._processor.is_control(i))

    def parsed_tokens(self) -> dict[int, str]:
        """None: SentencePiece reads "</s>" as the four characters it is."""
        return {}

    def added_bos(self) -> int | None:
        """Llama's tokenizers add one wherever the model has one."""
        bos = int(self._processor.bos_id())
        return bos if bos >= 0 else None

    def own_eos(self) -> int | None:
        eos = int(self._processor.eos_id())
        return eos if eos >= 0 else None


def open_model(folder: Path) -> JsonModel | SentencePieceModel:
    """The folder's tokenizer.json, or else its tokenizer.model.

    Raises:
        DataError: neither is there, or what is there cannot be read.
    """
    if (folder / JSON_FILE).is_file():
        return JsonModel(folder / JSON_FILE)
    if (folder / SENTENCEPIECE_FILE).is_file():
        return SentencePieceModel(folder / SENTENCEPIECE_FILE)
    raise DataError(f"{folder} holds no tokenizer.json; give a Hugging Face tokenizer folder")
