"""A bounded look at the text of a source: what some seconds of reading give, and how much of it that is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from persianmind.text.corpus import training_documents
from persianmind.text.sources.base import SourceFile
from persianmind.text.sources.locate import locate
from persianmind.text.spec import SourceSpec

MAX_CHARACTERS = 4_000_000
# Of this process's own work, so that a busy machine reads as much; and of the clock, for slow disks.
MAX_WORK_S, MAX_S = 5.0, 60.0
_CLOCK_EVERY = 64  # documents


@dataclass(frozen=True, slots=True)
class TextSample:
    """What was read of one source's training split.

    document_words: of each document that was read. characters, utf8_bytes: how much that is. is_whole:
    whether that is all of it. stored_bytes: of its files as they lie there, None where that is not known.
    texts: some of those read.
    """

    name: str
    is_instruction: bool
    document_words: tuple[int, ...]
    characters: int
    utf8_bytes: int
    is_whole: bool
    stored_bytes: int | None
    texts: tuple[str, ...]

    @property
    def documents(self) -> int:
        """How many were read."""
        return len(self.document_words)

    @property
    def words(self) -> int:
        """Of all that was read."""
        return sum(self.document_words)

    @property
    def whole_over_read(self) -> float | None:
        """The whole text over what was read, by the size of the files; at least 1; None where not known.

        Compressed files hold more than that.
        """
        if self.is_whole:
            return 1.0
        if self.stored_bytes is None:
            return None
        return max(1.0, self.stored_bytes / max(1, self.utf8_bytes))


def read_sample(
    spec: SourceSpec,
    on_text: Callable[[str], object],
    *,
    max_characters: int = MAX_CHARACTERS,
    max_work_s: float = MAX_WORK_S,
) -> TextSample | None:
    """Reads the beginning of a source's training split, as training reads it.

    Args:
        on_text: gets each text.
        max_characters, max_work_s: where reading ends.

    Returns:
        What was read; None for a source that lies on the network.

    Raises:
        SourceError: it cannot be found or read.
    """
    files = locate(spec.name, spec.source)
    if any(file.remote for file in files):
        return None
    characters = utf8_bytes = 0
    kept: list[str] = []
    document_words: list[int] = []
    started_s, worked_s = time.monotonic(), time.thread_time()
    is_whole = True
    for count, document in enumerate(training_documents(spec, frozenset()), start=1):
        for text in document.texts:
            on_text(text)
            characters += len(text)
            utf8_bytes += len(text.encode("utf-8", "surrogatepass"))
        document_words.append(sum(len(text.split()) for text in document.texts))
        if len(kept) < _CLOCK_EVERY:
            kept.extend(document.texts)
        if count % _CLOCK_EVERY == 0 or characters >= max_characters:
            late = time.thread_time() - worked_s > max_work_s or time.monotonic() - started_s > MAX_S
            if not late and characters < max_characters:
                continue
            is_whole = False
            break
    return TextSample(
        name=spec.name,
        is_instruction=spec.source.is_dialogue,
        document_words=tuple(document_words),
        characters=characters,
        utf8_bytes=utf8_bytes,
        is_whole=is_whole,
        stored_bytes=_stored_bytes(files),
        texts=tuple(kept),
    )


def _stored_bytes(files: list[SourceFile]) -> int | None:
    sizes = [file.size_bytes for file in files]
    return None if None in sizes else sum(size for size in sizes if size is not None)
