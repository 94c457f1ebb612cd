"""One raw record to a record, or to a named reason why not. Pure: the same on any worker."""

from __future__ import annotations

import re
from dataclasses import replace

from persianmind.recipe import Source
from persianmind.text.dedup import text_fingerprint
from persianmind.text.dialogue import BadDialogueError, UntrainableDialogueError
from persianmind.text.faults import BadRecordError, Fault
from persianmind.text.formats import text_formats
from persianmind.text.parallel import pair_texts
from persianmind.text.record import Fields, RawRecord, Record, Rejected
from persianmind.text.shapes import parse_dialogue

_SURROGATE = re.compile("[\ud800-\udfff]")
# C0 controls that no text needs; tab, newline and carriage return stay. They mark binary data.
_CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
# A record without one letter or number of any script carries nothing to learn (ZWNJ only, dashes only).
_WORD = re.compile(r"[^\W_]")


def decode_record(name: str, source: Source, raw: RawRecord) -> Record | Rejected:
    """Decodes and checks one record of the source called `name`. Never raises for what is in the record."""
    payload = raw.payload
    if isinstance(payload, Fault):
        fault = payload
        return Rejected(
            raw.file_name, raw.number, fault.reason, fault.detail, fault.ends_file, fault.file_bytes
        )
    try:
        if isinstance(payload, Record):
            record = payload
        else:
            if raw.format or isinstance(payload, bytes):
                fields = text_formats()[raw.format].decode(payload, source)
            else:
                fields = payload
            record = Record(source=name, key="", place=raw.place, fields=fields, part=raw.part)
        texts = check_fields(source, record.fields)
        if not record.key:
            record = replace(record, key=_key(source, record, texts))
    except BadRecordError as error:
        sample = payload if isinstance(payload, bytes) else repr(payload)[:1000]
        return Rejected(raw.file_name, raw.number, str(error), sample)
    return record


def _key(source: Source, record: Record, texts: tuple[str, ...]) -> str:
    """The key of the record's document: the value of `group_by`, else its content.

    An `id` is no key: sets number their parts from 0 anew, and their pages by the book.
    """
    group = None if source.group_by is None else record.fields.get(source.group_by)
    if group is not None:
        return f"{source.group_by}={group}"
    return f"content/{text_fingerprint(*texts):016x}" if texts else record.place


def check_fields(source: Source, fields: Fields) -> tuple[str, ...]:
    """Whether a record has what its kind needs, as usable text.

    Returns:
        Its text, or its turns' texts; nothing for a record that is left out whole.

    Raises:
        BadRecordError: it does not.
    """
    if source.kind == "parallel":
        try:
            pair = pair_texts(fields, source)
        except BadDialogueError as error:
            raise BadRecordError(str(error)) from None
        for text in pair:
            _check_characters(text)
        return pair
    if source.kind == "instruction":
        try:
            messages = parse_dialogue(fields, source.columns).messages
        except BadDialogueError as error:
            raise BadRecordError(str(error)) from None
        except UntrainableDialogueError:
            return ()  # a sound record; cleaning leaves it out by name
        for message in messages:
            _check_characters(message.content)
        return tuple(message.content for message in messages)
    if source.text_field not in fields:
        raise BadRecordError("missing_field")
    text = fields[source.text_field]
    if text is None:
        raise BadRecordError("null_text")
    if not isinstance(text, str):
        raise BadRecordError("wrong_type")
    _check_characters(text)
    if not _WORD.search(text):
        raise BadRecordError("empty_text" if not text.strip() else "no_letters")
    return (text,)


def _check_characters(text: str) -> None:
    if _SURROGATE.search(text):
        raise BadRecordError("lone_surrogate")
    if _CONTROL.search(text):
        raise BadRecordError("control_characters")


def sample_text(sample: str | bytes) -> str:
    """The sample of a bad record as text; bytes that are none become escapes."""
    return sample if isinstance(sample, str) else sample.decode("utf-8", "backslashreplace")
