"""Panics of the tokenizers library, as errors of ours.

A pattern of tokenizer.json that needs too many steps on a text ends in pyo3's PanicException. It is a
BaseException, so that no handler for errors sees it, and a damaged file would look like a fault of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from persianmind.common.errors import PersianMindError


@contextmanager
def panics_named(where: Path, error: type[PersianMindError]) -> Iterator[None]:
    """Turns a panic inside the block into `error`, with one line that names the tokenizer.

    Args:
        where: the tokenizer's file or folder.
        error: the class to raise.

    Raises:
        PersianMindError: of class `error`, when the library panicked; everything else passes as it is.
    """
    try:
        yield
    except BaseException as problem:
        # The class belongs to the extension module and cannot be imported.
        if type(problem).__name__ != "PanicException":
            raise
        raise error(
            f"{where}: the tokenizers library gave up on it ({' '.join(str(problem).split())}); a pattern in "
            "tokenizer.json takes too many steps on some text: copy the base's tokenizer.json again"
        ) from None
