"""One raw record to a record, or to a named reason why not. Pure: the same on any worker."""

from __future__ import annotations

import re

from persianmind.recipe import Source
from persianmind.text.dialogue import BadDialogueError, parse_dialogue
from persianmind.text.faults import BadRecordError, Fault
from persianmind.text.formats import text_formats
from persianmind.text.record import Fields, RawRecord, Record, Rejected

_SURROGATE = re.compile("[\ud800-\udfff]")
# C0 controls that no text needs; tab, newline and carriage return stay. They mark binary data.
_CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
# A record without one letter or number of any script carries nothing to learn (ZWNJ only, dashes only).
_WORD = re.compile(r"[^\W_]")


def decode_record(name: str, source: Source, raw: RawRecord) -> Record | Rejected:
    """Decodes and checks one record of the source called `name`. Never raises for what is in the record."""
    payload = raw.payload
    if isinstance(payload, Fault):
        return Rejected(raw.file_name, raw.number, payload.reason, payload.detail, payload.ends_file)
    try:
        if isinstance(payload, Record):
            record = payload
        else:
            if raw.format or isinstance(payload, bytes):
                fields = text_formats()[raw.format].decode(payload, source)
            else:
                fields = payload
            record = Record(source=name, key=_key(fields, raw), place=raw.place, fields=fields)
        check_fields(source, record.fields)
    except BadRecordError as error:
        sample = payload if isinstance(payload, bytes) else repr(payload)[:1000]
        return Rejected(raw.file_name, raw.number, str(error), sample)
    return record


def _key(fields: Fields, raw: RawRecord) -> str:
    """The key of the record's document: its `id` where it has one, else file and line."""
    identity = fields.get("id")
    return identity if isinstance(identity, str) and identity else raw.place


def check_fields(source: Source, fields: Fields) -> None:
    """Whether a record has what its kind needs, as usable text.

    Raises:
        BadRecordError: it does not.
    """
    if source.kind == "instruction":
        try:
            messages = parse_dialogue(fields)
        except BadDialogueError as error:
            raise BadRecordError(str(error)) from None
        for message in messages:
            _check_text(message.content, may_be_empty=message.role != "assistant")
        return
    if source.text_field not in fields:
        raise BadRecordError("missing_field")
    text = fields[source.text_field]
    if text is None:
        raise BadRecordError("null_text")
    if not isinstance(text, str):
        raise BadRecordError("wrong_type")
    _check_text(text)


def _check_text(text: str, *, may_be_empty: bool = False) -> None:
    if _SURROGATE.search(text):
        raise BadRecordError("lone_surrogate")
    if _CONTROL.search(text):
        raise BadRecordError("control_characters")
    if not may_be_empty and not _WORD.search(text):
        raise BadRecordError("empty_text" if not text.strip() else "no_letters")
