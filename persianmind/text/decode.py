"""One raw record to one row, or to a named reason why not. Pure: the same on any worker."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from persianmind.recipe import Source
from persianmind.text.dialogue import BadDialogueError, parse_dialogue
from persianmind.text.record import Record
from persianmind.text.records import Fault, RawRecord

_SURROGATE = re.compile("[\ud800-\udfff]")
# C0 controls that no text needs; tab, newline and carriage return stay. They mark binary data.
_CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
# A row without one letter or number of any script carries nothing to learn (ZWNJ only, dashes only).
_WORD = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no usable row."""

    file: str
    line: int
    reason: str
    sample: str | bytes
    ends_file: bool = False


class _Reject(Exception):
    """Carries a reason up to `decode_record`."""


def decode_record(name: str, source: Source, record: RawRecord) -> Record | Rejected:
    """Decodes and checks one record of the source called `name`. Never raises for what is in the record."""
    payload = record.payload
    if isinstance(payload, Fault):
        return Rejected(record.file_name, record.number, payload.reason, payload.detail, payload.ends_file)
    try:
        if isinstance(payload, Record):
            fields, key = payload.fields, payload.key
        else:
            fields, key = _fields_of(source, record, payload)
        check_fields(source, fields)
    except _Reject as error:
        sample = payload if isinstance(payload, bytes) else repr(payload)[:1000]
        return Rejected(record.file_name, record.number, str(error), sample)
    if isinstance(payload, Record):
        return payload
    return Record(source=name, key=key, place=record.place, fields=fields)


def _fields_of(
    source: Source, record: RawRecord, payload: bytes | Mapping[str, Any]
) -> tuple[Mapping[str, Any], str]:
    """The row and the key of its document: its `id` where it has one, else file and line."""
    if not isinstance(payload, bytes):
        fields = payload
    elif record.format == "txt":
        return {source.text_field: _decode_utf8(payload)}, record.place
    else:
        fields = parse_json_object(payload)
    identity = fields.get("id")
    return fields, identity if isinstance(identity, str) and identity else record.place


def _decode_utf8(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _Reject("invalid_utf8") from None


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """One JSON object; NaN, infinities and nesting past the interpreter's limit are refused by name."""
    text = _decode_utf8(raw)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise _Reject("nested_too_deep") from None
    except ValueError:
        raise _Reject("invalid_json") from None
    if not isinstance(value, dict):
        raise _Reject("not_an_object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _Reject("nan_or_infinity")


def check_fields(source: Source, fields: Mapping[str, Any]) -> None:
    """Raises _Reject unless the row has what its kind needs, as usable text."""
    if source.kind == "instruction":
        try:
            messages = parse_dialogue(fields)
        except BadDialogueError as error:
            raise _Reject(str(error)) from None
        for message in messages:
            _check_text(message.content, may_be_empty=message.role != "assistant")
        return
    if source.text_field not in fields:
        raise _Reject("missing_field")
    text = fields[source.text_field]
    if text is None:
        raise _Reject("null_text")
    if not isinstance(text, str):
        raise _Reject("wrong_type")
    _check_text(text)


def _check_text(text: str, *, may_be_empty: bool = False) -> None:
    if _SURROGATE.search(text):
        raise _Reject("lone_surrogate")
    if _CONTROL.search(text):
        raise _Reject("control_characters")
    if not may_be_empty and not _WORD.search(text):
        raise _Reject("empty_text" if not text.strip() else "no_letters")
