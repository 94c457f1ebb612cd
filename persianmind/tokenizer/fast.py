"""The fast path: documents through gigatoken, where it is installed and gives the saved tokenizer's ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from persianmind.common.errors import DataError
from persianmind.language.hard_strings import HARD_STRINGS
from persianmind.tokenizer.models import JSON_FILE

Encode = Callable[[Sequence[str]], list[list[int]]]


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
