"""Checksums: of files, of strings, and inside the JSON files that are read again.

They detect damage and tell contents apart; they are no defence against forgery. All JSON files of ours carry
their checksum in one way: an object has it as its last key `checksum` (xxh3-128), a line of a JSON-lines
file as its last key `crc` (CRC-32). Plain json.load reads both. YAML has it in a comment at its end.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from persianmind.common.atomic import write_text
from persianmind.common.errors import DamagedFileError
from persianmind.common.progress import count_work

CHECKSUM, CRC = "checksum", "crc"
_COMMENT = "# checksum: "
MAX_JSON_BYTES = 256 << 20  # a damaged or hostile length must not fill the memory


def hash_file(path: Path) -> str:
    """xxh3-128 of a file's bytes, as 32 hex digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
            count_work(len(block))
    return digest.hexdigest()


def hash_text(*parts: str) -> str:
    """xxh3-128 over several strings; lengths are mixed in, so ("ab", "c") differs from ("a", "bc")."""
    digest = xxhash.xxh3_128()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def hash_files(folder: Path, names: Iterable[str]) -> str:
    """Hash over names and bytes of those of `names` that `folder` holds; other files may lie beside them."""
    parts: list[str] = []
    for name in names:
        if (folder / name).is_file():
            parts += [name, hash_file(folder / name)]
    return hash_text(*parts)


def dump_checked(content: Mapping[str, Any]) -> str:
    """The text of a JSON object of ours, its checksum last.

    Raises:
        ValueError, TypeError: the content is not plain JSON (NaN and infinities are not).
    """
    plain = {key: value for key, value in content.items() if key != CHECKSUM}
    return _pretty({**plain, CHECKSUM: hash_text(_pretty(plain))}) + "\n"


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `dump_checked` whole or not at all."""
    write_text(path, dump_checked(content))


def read_checked(path: Path, fix: str = "restore it from a copy") -> dict[str, Any]:
    """Reads what `write_checked` wrote; the checksum itself is not in the result.

    Exactly the bytes that were written are demanded: any changed byte, white space included, is noticed.

    Args:
        path: the file.
        fix: what to do about a damaged one, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: its bytes are not those that were written.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DamagedFileError(f"{path} is larger than any file of its kind; {fix}")
        return parse_checked(path.read_bytes(), str(path), fix)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror or error}); {fix}") from None


def parse_checked(raw: bytes, where: str, fix: str = "restore it from a copy") -> dict[str, Any]:
    """`read_checked` of bytes; `where` is named in the error."""
    try:
        content = json.loads(raw)
        stated = content.pop(CHECKSUM)
        sound = stated == hash_text(_pretty(content)) and raw == dump_checked(content).encode("utf-8")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        sound, content = False, {}
    if not sound:
        raise DamagedFileError(f"{where} is damaged: its checksum does not match; {fix}")
    return dict(content)


def dump_checked_text(text: str) -> str:
    """A text of whole lines with a last one that is a comment (#) with the checksum of those before."""
    return f"{text}{_COMMENT}{hash_text(text)}\n"


def read_checked_text(path: Path, fix: str) -> str:
    """The text of a file that holds what `dump_checked_text` gave, the last line with it.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: its bytes are not those that were written, or it carries no checksum.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    content, _, _ = text.rpartition(_COMMENT)
    if not content or dump_checked_text(content) != text:
        raise DamagedFileError(f"{path} is damaged: its checksum does not match; {fix}")
    return text


def dump_checked_line(record: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """One line of a JSON-lines file of ours without its end, its CRC last.

    ascii_only: write other letters as their numbers; the CRC is over the letters.
    """
    plain = {key: value for key, value in record.items() if key != CRC}
    return json.dumps({**plain, CRC: _crc(plain)}, ensure_ascii=ascii_only, allow_nan=False)


def parse_checked_line(line: str | bytes) -> dict[str, Any] | None:
    """The record of a line, without its CRC; None for a line that is damaged or was cut short."""
    try:
        record = json.loads(line)
        stated = record.pop(CRC)
        sound = stated == _crc(record)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return dict(record) if sound else None


def _pretty(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)


def _crc(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
