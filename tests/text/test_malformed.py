"""Malformed records of many kinds: good ones are all kept, bad ones counted under a name, never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import TooManyBadRecordsError
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.recipe import Source
from persianmind.text.quarantine import Quarantine
from persianmind.text.record import Rejected
from persianmind.text.sources.locate import locate
from persianmind.text.stream import stream_records
from tests.text.helpers import GOOD, good, gz, line, peak_bytes, read

# One bad line between good ones: (name, bytes of the line without its end, reason it is counted under).
BAD_LINES: list[tuple[str, bytes, str]] = [
    ("invalid byte at the start", b'\xff{"text": "a b"}', "invalid_utf8"),
    ("invalid byte in the middle", b'{"text": "a \xc3( b"}', "invalid_utf8"),
    ("invalid byte at the end", b'{"text": "a b"}\xd9', "invalid_utf8"),
    ("CP1256", '{"text": "سلام دنیا"}'.replace("ی", "ي").encode("cp1256"), "invalid_utf8"),
    ("Latin-1", '{"text": "café"}'.encode("latin-1"), "invalid_utf8"),
    ("overlong encoding", b'{"text": "\xc0\xafa"}', "invalid_utf8"),
    ("encoded surrogate", b'{"text": "\xed\xa0\x80a"}', "invalid_utf8"),
    ("past U+10FFFF", b'{"text": "\xf4\x90\x80\x80a"}', "invalid_utf8"),
    ("escaped lone surrogate", rb'{"text": "a \ud800 b"}', "lone_surrogate"),
    ("escaped NUL", rb'{"text": "a \u0000 b"}', "control_characters"),
    ("raw NUL", b'{"text": "a \x00 b"}', "invalid_json"),
    ("escaped control", rb'{"text": "a \u0007 b"}', "control_characters"),
    ("cut JSON", b'{"text": "a b', "invalid_json"),
    ("two objects on a line", b'{"text": "a"}{"text": "b"}', "invalid_json"),
    ("trailing comma", b'{"text": "a",}', "invalid_json"),
    ("single quotes", b"{'text': 'a'}", "invalid_json"),
    ("no JSON at all", "سلام".encode(), "invalid_json"),
    ("nested 100,000 deep", b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested_too_deep"),
    ("number of 10,000 digits", b'{"text": ' + b"9" * 10_000 + b"}", "invalid_json"),
    ("NaN", b'{"text": "a", "score": NaN}', "nan_or_infinity"),
    ("minus infinity", b'{"text": "a", "score": -Infinity}', "nan_or_infinity"),
    ("list", b'["a b"]', "not_an_object"),
    ("string", b'"a b"', "not_an_object"),
    ("null", b"null", "not_an_object"),
    ("missing field", b'{"txt": "a b"}', "missing_field"),
    ("null text", b'{"text": null}', "null_text"),
    ("number for text", b'{"text": 12}', "wrong_type"),
    ("list for text", b'{"text": ["a", "b"]}', "wrong_type"),
    ("object for text", b'{"text": {"fa": "a"}}', "wrong_type"),
    ("true for text", b'{"text": true}', "wrong_type"),
    ("empty text", b'{"text": ""}', "empty_text"),
    ("white space only", rb'{"text": " \n\t "}', "empty_text"),
    ("ZWNJ only", '{"text": "\u200c\u200c\u200c"}'.encode(), "no_letters"),
    ("RTL overrides only", '{"text": "\u202e\u202d\u202c"}'.encode(), "no_letters"),
    ("dashes only", b'{"text": "---- ____ ----"}', "no_letters"),
    ("tatweel and marks only", '{"text": "\u064b\u064c\u064d"}'.encode(), "no_letters"),
]


@pytest.mark.parametrize(("bad", "reason"), [b[1:] for b in BAD_LINES], ids=[b[0] for b in BAD_LINES])
def test_one_bad_line(tmp_path: Path, bad: bytes, reason: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(good(0) + good(1) + bad + b"\n" + good(2))
    texts, quarantine, lines = read(path)
    assert texts == GOOD
    assert dict(quarantine.rejected) == {reason: 1}
    assert quarantine.seen == 4
    assert [(one["file"], one["line"], one["reason"]) for one in lines] == [("c.jsonl", 3, reason)]
    assert len(lines[0]["sample"]) <= 160
    written = (tmp_path / "quarantine.jsonl").read_bytes()
    assert all(32 <= byte < 127 for byte in written.rstrip(b"\n")), "a sample cannot steer a terminal"


# Files that are fine although they look odd: (name, bytes).
ODD_BUT_GOOD: list[tuple[str, bytes]] = [
    ("CRLF", (good(0) + good(1) + good(2)).replace(b"\n", b"\r\n")),
    ("byte order mark", b"\xef\xbb\xbf" + good(0) + good(1) + good(2)),
    ("marks of files joined together", b"".join(b"\xef\xbb\xbf" + good(i) for i in range(3))),
    ("no line end at the end", (good(0) + good(1) + good(2))[:-1]),
    ("blank lines", b"\n\n" + good(0) + b"   \n" + good(1) + b"\r\n" + good(2) + b"\n\n\n"),
    ("line separators inside a string", good(0) + good(1) + good(2)),
    ("spaces around", b"".join(b"  " + good(i)[:-1] + b"  \n" for i in range(3))),
    ("repeated key", b'{"text": "x", "text": ' + line(GOOD[0])[:-1] + b"}\n" + good(1) + good(2)),
]


@pytest.mark.parametrize("content", [o[1] for o in ODD_BUT_GOOD], ids=[o[0] for o in ODD_BUT_GOOD])
def test_odd_but_good(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.jsonl").write_bytes(content)
    texts, quarantine, _ = read(tmp_path / "c.jsonl")
    assert texts == GOOD and not quarantine.rejected


def test_unicode_line_separators_do_not_split(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\u0085d"
    (tmp_path / "c.jsonl").write_bytes(line({"text": text}))
    assert read(tmp_path / "c.jsonl")[0] == [text]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "c.jsonl").write_bytes((mark + (good(0) + good(1)).decode()).encode(encoding))
    texts, quarantine, lines = read(tmp_path / "c.jsonl")
    assert texts == [] and dict(quarantine.rejected) == {"utf16": 1}
    assert "iconv" in lines[0]["sample"]


def test_line_of_100_mb_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with path.open("wb") as handle:
        handle.write(good(0) + b'{"text": "')
        for _ in range(100):
            handle.write(b"x" * (1 << 20))
        handle.write(b'"}\n' + good(1) + good(2))
    results: list[Any] = []
    peak = peak_bytes(lambda: results.append(read(path)))
    texts, quarantine, lines = results[0]
    assert texts == GOOD and dict(quarantine.rejected) == {"record_too_long": 1}
    assert lines[0]["line"] == 2
    assert peak < 80 << 20


INSTRUCTIONS: list[tuple[str, Any, str]] = [
    ("no output", {"instruction": "a"}, "missing_field"),
    ("no instruction", {"output": "a"}, "missing_field"),
    ("number for input", {"instruction": "a", "input": 5, "output": "b"}, "wrong_type"),
    ("empty answer", {"instruction": "a", "output": "  "}, "empty_answer"),
    ("empty prompt", {"instruction": "", "input": "", "output": "b"}, "empty_prompt"),
    ("messages are text", {"messages": "a"}, "wrong_type"),
    ("messages are empty", {"messages": []}, "wrong_type"),
    ("message is text", {"messages": ["a"]}, "wrong_type"),
    ("unknown role", {"messages": [{"role": "narrator", "content": "a"}]}, "unknown_role"),
    ("role is missing", {"messages": [{"content": "a"}]}, "wrong_type"),
    ("content is a list", {"messages": [{"role": "user", "content": [5]}]}, "wrong_type"),
    ("question without answer", {"messages": [{"role": "user", "content": "a"}]}, "no_answer"),
    ("answer first", {"messages": [{"role": "assistant", "content": "a"}]}, "roles_out_of_turn"),
    (
        "two questions",
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        "roles_out_of_turn",
    ),
    (
        "late system message",
        {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
        "roles_out_of_turn",
    ),
    ("surrogate in the answer", {"instruction": "a", "output": "b \ud800"}, "lone_surrogate"),
]


@pytest.mark.parametrize(("bad", "reason"), [i[1:] for i in INSTRUCTIONS], ids=[i[0] for i in INSTRUCTIONS])
def test_bad_instruction_records(tmp_path: Path, bad: Any, reason: str) -> None:
    fine = {"instruction": "پرسش", "input": "", "output": "پاسخ"}
    body = "".join(json.dumps(one) + "\n" for one in (fine, bad, fine))
    (tmp_path / "i.jsonl").write_text(body)
    _, quarantine, _ = read(tmp_path / "i.jsonl", kind="instruction")
    assert quarantine.seen == 3 and dict(quarantine.rejected) == {reason: 1}


def test_budget_counts_only_bad_records_and_names_them(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl")
    for i in range(19):
        quarantine.accept()
        quarantine.check_budget("fa", 0.05, final=i == 18)
    quarantine.reject(Rejected("c.jsonl", 20, "invalid_json", b"{\xff\x1b[31m"))
    quarantine.check_budget("fa", 0.05, final=True)  # 1 of 20 is within 5%
    quarantine.reject(Rejected("c.jsonl", 21, "wrong_type"))
    quarantine.check_budget("fa", 0.05)  # too early to judge: fewer than a thousand records
    with pytest.raises(TooManyBadRecordsError, match=r"2 of 21 .*invalid_json 1, wrong_type 1.*q\.jsonl"):
        quarantine.check_budget("fa", 0.05, final=True)
    assert "\x1b" not in (tmp_path / "q.jsonl").read_text(), "a sample cannot steer a terminal"


def damaged(folder: Path, *, whole: int, cut: int) -> list[Path]:
    """So many good files, and so many that end too early."""
    for i in range(whole + cut):
        content = gz(b"".join(good(j % 3) for j in range(200)))
        (folder / f"{i:02d}.jsonl.gz").write_bytes(content[: len(content) if i < whole else -20])
    return sorted(folder.iterdir())


def test_damaged_files_have_a_budget_of_their_own(tmp_path: Path) -> None:
    """Of twenty files one may be damaged; in files, and in bytes."""
    damaged(tmp_path, whole=19, cut=1)
    source = Source(uri=str(tmp_path))
    quarantine = Quarantine()
    list(stream_records("fa", source, quarantine))
    files = locate("fa", source)
    quarantine.check_damage("fa", 0.05, files)
    with pytest.raises(TooManyBadRecordsError, match=r"1 of 20 files are .*19.jsonl.gz: truncated_gz"):
        quarantine.check_damage("fa", 0.04, files)
    (tmp_path / "19.jsonl.gz").write_bytes((tmp_path / "19.jsonl.gz").read_bytes() + b"\0" * 4096)
    quarantine = Quarantine()
    list(stream_records("fa", source, quarantine))
    assert len(quarantine.damage.files) == 1
    with pytest.raises(TooManyBadRecordsError, match=r"1 of 20 files .* of .* bytes"):
        quarantine.check_damage("fa", 0.05, locate("fa", source))


def test_what_was_passed_over_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`vocab build` reads by this function; one bad record of fifty is within what it allows."""
    from persianmind.vocab.texts import read_texts

    (tmp_path / "a.jsonl").write_bytes(b"".join(good(i % 3) for i in range(49)) + b"junk\n")
    assert len(list(read_texts([str(tmp_path)], profile=PERSIAN)())) == 49
    assert "1 of 50 records are bad (invalid_json 1); they are passed over" in caplog.text
