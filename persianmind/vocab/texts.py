"""Text for the vocabulary verbs: paths on the command line -> normalised documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from persianmind.common.errors import SourceError
from persianmind.language.persian import normalise
from persianmind.recipe import Normalise, Source
from persianmind.text.quarantine import Quarantine
from persianmind.text.sources.locate import SourceFile, locate
from persianmind.text.stream import check_sources, stream_records

_NAME = "--text"
MAX_BAD_RECORD_RATIO = 0.05
_CHECK_EVERY = 10_000  # rows; a file of the wrong encoding is given up early


def read_texts(
    uris: Sequence[str], text_field: str = "text", options: Normalise = Normalise()
) -> Callable[[], Iterator[str]]:
    """A function that gives the normalised documents of `uris`, from the start at every call.

    Rows that are not UTF-8, not JSON or have no text are passed over while they are few.

    Raises:
        SourceError: at once for a path that names nothing; while reading when more than 5% of the rows are
            bad.
    """
    source = Source(uri=list(uris), text_field=text_field)
    check_sources({_NAME: source})

    def texts() -> Iterator[str]:
        quarantine = Quarantine()
        for row in stream_records(_NAME, source, quarantine):
            if quarantine.seen % _CHECK_EVERY == 0:
                _check_bad_rows(quarantine)
            yield normalise(row.fields[text_field], options)
        _check_bad_rows(quarantine)

    return texts


def _check_bad_rows(quarantine: Quarantine) -> None:
    bad = quarantine.total_rejected
    if bad > MAX_BAD_RECORD_RATIO * quarantine.seen:
        reasons = ", ".join(f"{reason} {count}" for reason, count in quarantine.rejected.most_common())
        raise SourceError(
            f"{_NAME}: {bad} of {quarantine.seen} rows are bad ({reasons}); the text must be UTF-8, one "
            "document a line or a row; mend it, or name the right --text-field"
        )


def text_files(uris: Sequence[str], text_field: str = "text") -> list[SourceFile]:
    """The files that `uris` name, in reading order."""
    return locate(_NAME, Source(uri=list(uris), text_field=text_field))
