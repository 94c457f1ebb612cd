"""Text for the vocabulary commands: paths on the command line -> normalised documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from persianmind.common.errors import SourceError
from persianmind.language import LanguageProfile
from persianmind.recipe import Normalise, Source
from persianmind.text.quarantine import Quarantine
from persianmind.text.sources.base import SourceFile
from persianmind.text.sources.locate import locate
from persianmind.text.stream import check_sources, stream_records

_NAME = "--text"
MAX_BAD_RECORD_RATIO = 0.05
_CHECK_EVERY = 10_000  # records; a file of the wrong encoding is given up early


def read_texts(
    uris: Sequence[str],
    text_field: str = "text",
    options: Normalise = Normalise(),
    *,
    profile: LanguageProfile,
) -> Callable[[], Iterator[str]]:
    """Makes a function that gives the normalised documents of `uris`, from the start at every call.

    Records that are not UTF-8, not JSON or have no text are passed over while they are few.

    Args:
        uris: files, folders, globs or URLs.
        text_field: field of JSON and parquet records.
        options: of the normaliser.
        profile: the language whose normaliser it is.

    Raises:
        SourceError: at once for a path that names nothing; while reading when more than 5% of the records
            are bad.
    """
    source = Source(uri=list(uris), text_field=text_field)
    check_sources({_NAME: source})

    def texts() -> Iterator[str]:
        quarantine = Quarantine()
        for record in stream_records(_NAME, source, quarantine):
            if quarantine.seen % _CHECK_EVERY == 0:
                _check_bad_records(quarantine)
            yield profile.normalise(record.fields[text_field], options)
        _check_bad_records(quarantine)
        quarantine.warn(_NAME)

    return texts


def _check_bad_records(quarantine: Quarantine) -> None:
    if quarantine.total_rejected > MAX_BAD_RECORD_RATIO * quarantine.seen:
        raise SourceError(
            f"{_NAME}: {quarantine.told()}; the text must be UTF-8, one document per line or record; fix it, "
            "or name the right --text-field"
        )


def text_files(uris: Sequence[str], text_field: str = "text") -> list[SourceFile]:
    """The files that `uris` name, in reading order."""
    return locate(_NAME, Source(uri=list(uris), text_field=text_field))
