"""Damaged files of many kinds: records before the damage are kept, the damage is one named fault."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from persianmind.common.errors import SourceError
from persianmind.recipe import Source
from persianmind.text.quarantine import Quarantine
from persianmind.text.record import Position
from persianmind.text.stream import check_sources, read_records, stream_records
from tests.text.helpers import GOOD, good, gz, line, peak_bytes, read, zst

MANY = 3000
XZ_NOTHING = lzma.compress(b"")


def _body() -> bytes:
    chance = random.Random(0)
    return b"".join(
        line({"text": f"ردیف {i} " + "".join(chance.choices("ابپتجچ ", k=40))}) for i in range(MANY)
    )


def _flip_last_crc(content: bytes) -> bytes:
    return content[:-6] + bytes([content[-6] ^ 1]) + content[-5:]


def _flip(content: bytes, place: float) -> bytes:
    at = int(len(content) * place)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


# (name, suffix, how the file's bytes come about, least and most good records, reason)
DAMAGED: list[tuple[str, str, Callable[[bytes], bytes], int, int, str]] = [
    ("truncated gz", ".gz", lambda b: _half(gz(b)), 1000, 2000, "truncated_gz"),
    ("gz cut in its trailer", ".gz", lambda b: gz(b)[:-5], MANY, MANY, "truncated_gz"),
    ("gz with a wrong CRC", ".gz", lambda b: _flip_last_crc(gz(b)), MANY - 1, MANY, "corrupt_gz"),
    ("gz with junk after it", ".gz", lambda b: gz(b) + b"junk", MANY, MANY, "corrupt_gz"),
    ("gz that is no gz", ".gz", lambda b: b"\0\1" + b, 0, 0, "corrupt_gz"),
    ("gz bytes gone in the middle", ".gz", lambda b: gz(b)[:9000] + gz(b)[9100:], 100, MANY, "corrupt_gz"),
    ("second member truncated", ".gz", lambda b: gz(b) + _half(gz(b)), MANY + 500, 2 * MANY, "truncated_gz"),
    ("truncated zst", ".zst", lambda b: _half(zst(b)), 0, 2500, "truncated_zst"),
    ("zst cut in its checksum", ".zst", lambda b: zst(b)[:-2], 2000, MANY, "truncated_zst"),
    ("zst with a wrong checksum", ".zst", lambda b: zst(b)[:-1] + b"\0", MANY, MANY, "corrupt_zst"),
    ("zst that is no zst", ".zst", lambda b: b"\0\1" + b, 0, 0, "corrupt_zst"),
    ("zst with junk after it", ".zst", lambda b: zst(b) + b"junk", MANY, MANY, "corrupt_zst"),
    ("truncated bz2", ".bz2", lambda b: _half(bz2.compress(b, 1)), 500, 2500, "truncated_bz2"),
    (
        "bz2 with a wrong CRC",
        ".bz2",
        lambda b: _flip_last_crc(bz2.compress(b)),
        MANY - 1,
        MANY,
        "corrupt_bz2",
    ),
    ("bz2 with junk after it", ".bz2", lambda b: bz2.compress(b) + b"junk", MANY, MANY, "corrupt_bz2"),
    (
        "second bz2, bytes gone in the middle",
        ".bz2",
        lambda b: bz2.compress(b) + _flip(bz2.compress(b, 1), 0.9),
        MANY + 500,
        2 * MANY,
        "corrupt_bz2",
    ),
    ("bz2 that is no bz2", ".bz2", lambda b: b"\0\1" + b, 0, 0, "corrupt_bz2"),
    ("truncated xz", ".xz", lambda b: _half(lzma.compress(b)), 1000, 2000, "truncated_xz"),
    ("xz with a wrong check", ".xz", lambda b: _flip(lzma.compress(b), 0.5), 500, MANY, "corrupt_xz"),
    ("xz with junk after it", ".xz", lambda b: lzma.compress(b) + b"junk" * 5, MANY, MANY, "corrupt_xz"),
]


@pytest.mark.parametrize(
    ("suffix", "make", "least", "most", "reason"), [d[1:] for d in DAMAGED], ids=[d[0] for d in DAMAGED]
)
def test_damaged_compression(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    suffix: str,
    make: Callable[[bytes], bytes],
    least: int,
    most: int,
    reason: str,
) -> None:
    """Records before the damage are kept, the damage is one named fault, and the next file is read."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / f"a.jsonl{suffix}").write_bytes(make(_body()))
    (folder / "b.jsonl").write_bytes(good(0))
    quarantine = Quarantine(tmp_path / "q.jsonl")
    records = list(stream_records("s", Source(uri=str(folder)), quarantine))
    quarantine.close()
    assert records[-1].fields["text"] == GOOD[0]
    assert least <= len(records) - 1 <= most
    # damage inside deflate data garbles lines for a while before it shows: those are bad records of their own
    garbled = ("invalid_json", "invalid_utf8") if "gone in the middle" in request.node.name else ()
    assert {r: n for r, n in quarantine.rejected.items() if r not in garbled} == {reason: 1}
    assert quarantine.damage.files == [f"a.jsonl{suffix}: {reason}"]
    expected = [f"ردیف {i} " for i in range(min(least, MANY))]
    assert all(record.fields["text"].startswith(e) for record, e in zip(records, expected, strict=False))


def test_zero_padding_and_several_members_are_legal(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl.gz").write_bytes(gz(good(0)) + gz(good(1)) + gz(b"") + gz(good(2)) + b"\0" * 512)
    texts, quarantine, _ = read(tmp_path / "c.jsonl.gz")
    assert texts == GOOD and not quarantine.rejected
    (tmp_path / "c.jsonl.zst").write_bytes(zst(good(0)) + zst(good(1) + good(2)))
    assert read(tmp_path / "c.jsonl.zst")[0] == GOOD
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress(good(0)) + bz2.compress(good(1) + good(2)))
    assert read(tmp_path / "c.jsonl.bz2")[0] == GOOD
    streams = lzma.compress(good(0)) + b"\0" * 8 + lzma.compress(b"") + lzma.compress(good(1) + good(2))
    (tmp_path / "c.jsonl.xz").write_bytes(streams)
    assert read(tmp_path / "c.jsonl.xz")[0] == GOOD


def test_empty_compressed_files(tmp_path: Path) -> None:
    """Nothing packed is no damage; no byte at all is a download that never came."""
    for suffix, content in (
        (".gz", gz(b"")),
        (".zst", zst(b"")),
        (".bz2", bz2.compress(b"")),
        (".xz", XZ_NOTHING),
    ):
        (tmp_path / f"c.jsonl{suffix}").write_bytes(content)
        texts, quarantine, _ = read(tmp_path / f"c.jsonl{suffix}")
        assert texts == [] and not quarantine.rejected
        (tmp_path / f"c.jsonl{suffix}").write_bytes(b"")
        with pytest.raises(SourceError, match=f"c.jsonl{suffix} cannot be read: empty: 0 bytes"):
            read(tmp_path / f"c.jsonl{suffix}")


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_decompression_bomb_is_given_up_in_bounded_memory(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes that stand for hundreds of megabytes; the limits are lowered to keep the test quick."""
    from persianmind.text import lines

    size = 256 << 20
    body = io.BytesIO()
    if suffix == ".zst":
        with zstandard.ZstdCompressor(level=19).stream_writer(body, closefd=False) as writer:
            writer.write(good(0))
            for _ in range(size >> 20):
                writer.write(b"\0" * (1 << 20))
    else:
        opened: Any = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}[suffix]
        with opened(body, mode="wb") if suffix != ".gz" else opened(fileobj=body, mode="wb") as zipped:
            zipped.write(good(0))
            for _ in range(size >> 20):
                zipped.write(b"\0" * (1 << 20))
    assert len(body.getvalue()) < size / 500
    (tmp_path / f"c.jsonl{suffix}").write_bytes(body.getvalue())
    split = lines.split_lines
    monkeypatch.setattr(lines, "split_lines", lambda chunks: split(chunks, 16 << 20, 200 << 20))
    results: list[Any] = []
    peak = peak_bytes(lambda: results.append(read(tmp_path / f"c.jsonl{suffix}")))
    texts, quarantine, _ = results[0]
    assert texts == [GOOD[0]] and dict(quarantine.rejected) == {"decompression_bomb": 1}
    assert peak < 120 << 20


def test_zst_frame_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    writer = compressor.compressobj()
    (tmp_path / "c.jsonl.zst").write_bytes(writer.compress(good(0)) + writer.flush())
    texts, quarantine, _ = read(tmp_path / "c.jsonl.zst")
    assert texts == [] and dict(quarantine.rejected) == {"corrupt_zst": 1}


def _parquet(path: Path, texts: list[Any], type_: Any = None) -> None:
    table = pa.table({"text": pa.array(texts, type=type_ or pa.string())})
    pq.write_table(table, path, row_group_size=1000, write_page_checksum=True)


def test_parquet_records(tmp_path: Path) -> None:
    _parquet(tmp_path / "c.parquet", [*GOOD, None, ""])
    texts, quarantine, lines = read(tmp_path / "c.parquet")
    assert texts == GOOD and dict(quarantine.rejected) == {"null_text": 1, "empty_text": 1}
    assert [one["line"] for one in lines] == [4, 5]


@pytest.mark.parametrize("cut", [4, 100, -1])
def test_truncated_parquet(tmp_path: Path, cut: int) -> None:
    _parquet(tmp_path / "c.parquet", [f"متن {i}" for i in range(1000)])
    content = (tmp_path / "c.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(content[:cut])
    texts, quarantine, _ = read(tmp_path / "c.parquet")
    assert texts == [] and dict(quarantine.rejected) == {"corrupt_parquet": 1}


def test_parquet_page_with_a_wrong_checksum(tmp_path: Path) -> None:
    _parquet(tmp_path / "c.parquet", [f"متن {i} {'ا' * 50}" for i in range(3000)])
    content = bytearray((tmp_path / "c.parquet").read_bytes())
    content[int(len(content) * 0.4)] ^= 4
    (tmp_path / "c.parquet").write_bytes(content)
    texts, quarantine, _ = read(tmp_path / "c.parquet")
    assert 500 < len(texts) < 3000 and dict(quarantine.rejected) == {"corrupt_parquet": 1}
    assert all(text.endswith("ا" * 50) for text in texts)


def test_parquet_of_another_type(tmp_path: Path) -> None:
    _parquet(tmp_path / "c.parquet", [1, 2], pa.int64())
    assert dict(read(tmp_path / "c.parquet")[1].rejected) == {"wrong_type": 2}


def test_parquet_without_the_column_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "url": ["b"]}), tmp_path / "c.parquet")
    with pytest.raises(SourceError, match="no column 'text'; set text_field to one of: body, url"):
        check_sources({"s": Source(uri=str(tmp_path / "c.parquet"))})


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error in the middle of a local file: the rest is one fault, the next file is read."""
    from persianmind.text.sources.local import LocalFile

    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(good(0) + good(1))
    (folder / "b.jsonl").write_bytes(good(2))
    real = LocalFile.open

    def failing(self: LocalFile) -> Any:
        if self.name == "a.jsonl":
            raise OSError(5, "Input/output error")
        return real(self)

    monkeypatch.setattr(LocalFile, "open", failing)
    quarantine = Quarantine()
    assert [record.fields["text"] for record in stream_records("s", Source(uri=str(folder)), quarantine)] == [
        GOOD[2]
    ]
    assert dict(quarantine.rejected) == {"unreadable_file": 1}


def test_remote_file_that_breaks_off_is_an_error_not_a_bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    from persianmind.text.sources.remote import RemoteFile

    fsspec.filesystem("memory").pipe("/broken/c.jsonl", good(0))

    def failing(self: RemoteFile) -> Any:
        raise OSError("connection reset")

    monkeypatch.setattr(RemoteFile, "open", failing)
    with pytest.raises(SourceError, match=r"broke off \(connection reset\); run the same command again"):
        list(stream_records("s", Source(uri="memory://broken/c.jsonl")))


def test_broken_link_and_forbidden_file_are_named_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(SourceError, match="broken symbolic link"):
        check_sources({"s": Source(uri=str(tmp_path / "c.jsonl"))})
    forbidden = tmp_path / "d.jsonl"
    forbidden.write_bytes(good(0))
    forbidden.chmod(0)
    if os.access(forbidden, os.R_OK):
        pytest.skip("this user may read every file (root); the rest of the test stands")
    with pytest.raises(SourceError, match="may not be read"):
        check_sources({"s": Source(uri=str(forbidden))})


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".bz2", ".xz"])
def test_going_on_from_any_record_gives_the_rest(tmp_path: Path, suffix: str) -> None:
    pack = {"": lambda b: b, ".gz": gz, ".zst": zst, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    body = good(0) + b"\n" + b"junk\n" + good(1) + b"\n\n" + good(2)
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / f"a.jsonl{suffix}").write_bytes(pack(body))
    (folder / f"b.jsonl{suffix}").write_bytes(pack(body)[:-3] if suffix else body)
    source = Source(uri=str(folder))
    records = list(read_records("s", source))
    assert len(records) >= 6
    for i, record in enumerate(records):
        assert list(read_records("s", source, record.after)) == records[i + 1 :]
    assert list(read_records("s", source, Position(0, 0))) == records
