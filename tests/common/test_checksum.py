"""Any changed byte of a checked JSON file or line is noticed; any JSON reader reads both."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from persianmind.common import checksum
from persianmind.common.checksum import (
    dump_checked,
    dump_checked_line,
    hash_file,
    hash_text,
    parse_checked,
    parse_checked_line,
    read_checked,
    write_checked,
)
from persianmind.common.errors import DamagedFileError

CONTENT = {"name": "دل", "list": [1, 2.5, None, True], "inner": {"a": "x\ny"}, "empty": {}}


def flips(raw: bytes) -> list[bytes]:
    """Every byte changed in every single bit, cut or doubled: one change each."""
    changed = [
        raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :] for at in range(len(raw)) for bit in range(8)
    ]
    cut = [raw[:at] + raw[at + 1 :] for at in range(len(raw))]
    doubled = [raw[:at] + raw[at : at + 1] + raw[at:] for at in range(len(raw))]
    return [one for one in [*changed, *cut, *doubled] if one != raw]


def test_a_file_is_plain_json_with_its_checksum_last(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_checked(path, CONTENT)
    plain = json.loads(path.read_text(encoding="utf-8"))
    assert list(plain) == [*CONTENT, "checksum"]
    assert read_checked(path) == CONTENT
    write_checked(path, plain)  # what was read, checksum and all, may be written again
    assert read_checked(path) == CONTENT


def test_every_changed_byte_of_a_file_is_noticed() -> None:
    raw = dump_checked(CONTENT).encode("utf-8")
    assert parse_checked(raw, "here") == CONTENT
    for damaged in flips(raw):
        with pytest.raises(DamagedFileError, match="here is damaged: its checksum does not match"):
            parse_checked(damaged, "here")


def test_control_without_the_byte_comparison_white_space_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = dump_checked(CONTENT).encode("utf-8")
    spaced = raw.replace(b"\n", b"\n ", 1)
    assert json.loads(spaced) == json.loads(raw)
    with pytest.raises(DamagedFileError):
        parse_checked(spaced, "here")
    monkeypatch.setattr(checksum, "dump_checked", lambda _: spaced.decode("utf-8"))
    assert parse_checked(spaced, "here") == CONTENT


def test_every_changed_byte_of_a_line_is_noticed() -> None:
    line = dump_checked_line(CONTENT).encode("utf-8")
    assert parse_checked_line(line) == CONTENT and b"\n" not in line
    assert list(json.loads(line)) == [*CONTENT, "crc"]
    # A CRC finds every burst of up to 32 bits; white space between tokens is none of the record's.
    missed = [one for one in flips(line) if parse_checked_line(one) is not None]
    assert all(json.loads(one) == json.loads(line) for one in missed), missed


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"null", b"7", b'{"crc": 1}', b'{"checksum": 1}', b"\xff", b"[" * 100_000]
)
def test_what_is_none_of_ours_is_damaged_and_no_crash(raw: bytes) -> None:
    assert parse_checked_line(raw) is None
    with pytest.raises(DamagedFileError):
        parse_checked(raw, "here")


def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_checked(tmp_path / "a.json", {"a": value})
        with pytest.raises(ValueError, match="not JSON compliant"):
            dump_checked_line({"a": value})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_missing_and_a_huge_one_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError):
        read_checked(tmp_path / "none.json")
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_checked(tmp_path)  # a folder
    write_checked(tmp_path / "a.json", CONTENT)
    monkeypatch.setattr(checksum, "MAX_JSON_BYTES", 10)
    with pytest.raises(DamagedFileError, match="larger than any file of its kind"):
        read_checked(tmp_path / "a.json")


def test_hashes_tell_contents_apart(tmp_path: Path) -> None:
    assert hash_text("ab", "c") != hash_text("a", "bc") != hash_text("a", "b", "c")
    assert hash_text("\ud800") != hash_text("?")  # a lone surrogate, as broken text has them
    for name, raw in (("a", b"x" * (1 << 21)), ("b", b"x" * ((1 << 21) - 1) + b"y")):
        (tmp_path / name).write_bytes(raw)
    assert hash_file(tmp_path / "a") != hash_file(tmp_path / "b")
    # The published digest of nothing (xxHash's own test vectors).
    (tmp_path / "empty").touch()
    assert hash_file(tmp_path / "empty") == "99aa06d3014798d86001c324468d497f"
