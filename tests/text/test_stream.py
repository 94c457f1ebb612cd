"""Every kind of source gives the same records in the same order, and a missing one is named with its fix."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persianmind.common.errors import SourceError
from persianmind.recipe import Source
from persianmind.text.formats import supported_kinds, text_formats
from persianmind.text.quarantine import Quarantine
from persianmind.text.sources.locate import locate, source_fingerprint
from persianmind.text.stream import check_sources, stream_records
from tests.support.corpus import TEXT_FOLDER, TEXT_NAMES
from tests.text.helpers import GOOD, good, gz, zst

BODY = good(0) + good(1) + good(2)


def _texts(**source: object) -> list[str]:
    checked = Source.model_validate(source)
    check_sources({"s": checked})
    return [record.fields[checked.text_field] for record in stream_records("s", checked)]


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "jsonl.gz", "jsonl.zst", "JSONL.GZ"])
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    pack = {"gz": gz, "zst": zst}.get(suffix.lower().rpartition(".")[2], lambda b: b)
    (tmp_path / f"c.{suffix}").write_bytes(pack(BODY))
    assert _texts(uri=str(tmp_path / f"c.{suffix}")) == GOOD


def test_text_files_by_line_and_by_paragraph(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("الف ب\nپ ت\n\n\nج چ\n", encoding="utf-8")
    assert _texts(uri=str(tmp_path / "c.txt")) == ["الف ب", "پ ت", "ج چ"]
    assert _texts(uri=str(tmp_path / "c.txt"), txt_unit="paragraph") == ["الف ب\nپ ت", "ج چ"]


def test_parquet_and_its_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": GOOD, "n": [1, 2, 3]}), tmp_path / "c.parquet")
    assert _texts(uri=str(tmp_path / "c.parquet"), text_field="body") == GOOD


def test_folder_glob_list_and_url_agree(tmp_path: Path) -> None:
    folder = tmp_path / "corpus" / "deep"
    folder.mkdir(parents=True)
    for i, name in enumerate(("b.jsonl", "a.jsonl.gz", "c.txt")):
        content = GOOD[i].encode() if name.endswith("txt") else good(i)
        (folder / name).write_bytes(gz(content) if name.endswith("gz") else content)
    (folder / "README.md").write_text("no text of the corpus")
    by_name = [GOOD[1], GOOD[0], GOOD[2]]
    assert _texts(uri=str(tmp_path / "corpus")) == by_name
    assert _texts(uri=str(folder / "*.jsonl*")) == by_name[:2]
    assert _texts(uri=f"file://{folder}") == by_name
    assert _texts(uri=[str(folder / "c.txt"), str(folder / "b.jsonl")]) == [GOOD[2], GOOD[0]]


def test_fsspec_url_of_a_file_a_folder_and_a_glob() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/b.jsonl.gz", gz(good(1)))
    memory.pipe("/corpus/a.jsonl", good(0))
    assert _texts(uri="memory://corpus/a.jsonl") == GOOD[:1]
    assert _texts(uri="memory://corpus") == GOOD[:2]
    assert _texts(uri="memory://corpus/*.jsonl.gz") == GOOD[1:2]
    memory.pipe("/pq/c.parquet", b"")
    with memory.open("/pq/c.parquet", "wb") as handle:
        pq.write_table(pa.table({"text": GOOD}), handle)
    assert _texts(uri="memory://pq/c.parquet") == GOOD


def test_hub_dataset_is_streamed_by_the_datasets_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset folder stands for the hub: the same call, no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(good(0) + good(1))
    (tmp_path / "set" / "test.jsonl").write_bytes(good(2))
    assert _texts(uri=f"hf://{tmp_path / 'set'}") == GOOD[:2]
    assert _texts(uri=f"hf://{tmp_path / 'set'}?split=test") == GOOD[2:]
    with pytest.raises(SourceError, match="cannot stream"):
        _texts(uri=f"hf://{tmp_path / 'set'}?split=nothing")


def test_keys_and_places(tmp_path: Path) -> None:
    """A record is known by its content; by a field where one is named, whatever its number in the file."""
    lines = [good(0), b'\n{"id": 7, "text": "a b"}\n', b'{"id": 7, "text": "b c"}\n{"text": " a  b "}\n']
    (tmp_path / "c.jsonl").write_bytes(b"".join(lines))
    records = list(stream_records("s", Source(uri=str(tmp_path / "c.jsonl"))))
    assert [record.place for record in records] == [f"c.jsonl:{n}" for n in (1, 3, 4, 5)]
    keys = [record.key for record in records]
    assert len({*keys}) == 3 and keys[1] == keys[3] != keys[2]
    grouped = [one.key for one in stream_records("s", Source(uri=str(tmp_path / "c.jsonl"), group_by="id"))]
    assert grouped == ["id=g/0", "id=7", "id=7", keys[3]]


MISSING: list[tuple[str, str]] = [
    ("{}/corpsu.jsonl", r"no such file or folder: .*corpsu\.jsonl \(did you mean 'corpus\.jsonl'\?\)"),
    ("{}/*.parquet", "the glob .* matches no file"),
    ("{}/empty", r"the folder .*empty holds no text to train on \(it is empty\); give csv, tsv, jsonl"),
    ("{}/notes.docx", r"notes\.docx cannot be read: of no known kind \(\.docx\); give csv"),
    ("package://hafes", "unknown.*did you mean 'hafez'"),
    ("hf://", "names no dataset"),
    ("memory://nowhere/c.jsonl", "nothing of a known kind"),
    ("sftpp://host/c.jsonl", "cannot open sftpp:// URLs"),
    ("", "is empty"),
]


@pytest.mark.parametrize(("uri", "message"), MISSING)
def test_missing_sources_are_named(tmp_path: Path, uri: str, message: str) -> None:
    (tmp_path / "corpus.jsonl").write_bytes(BODY)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(SourceError, match=message) as error:
        check_sources({"fa": Source(uri=uri.format(tmp_path))})
    assert "\n" not in str(error.value)


def test_fingerprint_follows_content_not_place_or_time(tmp_path: Path) -> None:
    big = b"".join(good(i % 3) for i in range(40_000))
    one, two = tmp_path / "one" / "c.jsonl", tmp_path / "two" / "c.jsonl"
    for path in (one, two):
        path.parent.mkdir()
        path.write_bytes(big)

    def of(path: Path, **changes: object) -> str:
        return source_fingerprint("s", Source.model_validate({"uri": str(path), **changes}))

    first = of(one)
    assert of(two) == first
    two.write_bytes(big[:-2] + b" \n")  # same size
    assert of(two) != first
    two.write_bytes(big + good(0))
    assert of(two) != first
    assert of(one, text_field="body") != first


def test_fingerprint_knows_its_limit(tmp_path: Path) -> None:
    """Stated in the docs: an edit of the same size outside the sixteen sampled blocks is not seen."""
    path = tmp_path / "c.jsonl"
    content = bytearray(b"x" * (1 << 22))
    path.write_bytes(content)
    first = source_fingerprint("s", Source(uri=str(path)))
    content[(1 << 16) + 1000] = 0  # between the first and the second block
    path.write_bytes(content)
    assert source_fingerprint("s", Source(uri=str(path))) == first


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    from persianmind.text import compression

    monkeypatch.setattr(compression, "CHUNK_BYTES", 1 << 14)  # tracing is slow; small chunks need little text

    def peak_bytes(copies: int) -> int:
        path = tmp_path / f"{copies}.jsonl.gz"
        path.write_bytes(gz(BODY * 1_000) * copies)
        tracemalloc.start()
        for _ in stream_records("s", Source(uri=str(path))):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    small, large = peak_bytes(2), peak_bytes(10)
    assert large < 1.2 * small


def test_formats_are_found_by_being_there() -> None:
    assert sorted(text_formats()) == ["arrow", "csv", "json", "parquet", "txt"]
    assert supported_kinds() == (
        "csv, tsv, jsonl, ndjson, json and txt (each also as .gz, .bz2, .xz or .zst), "
        "and arrow, feather, parquet"
    )


def test_a_new_format_is_one_new_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package folder more on the path of formats, with one module: its suffix is served at once."""
    from persianmind.text import formats

    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "pipes.py").write_text(_PIPES)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    text_formats.cache_clear()
    try:
        (tmp_path / "c.psv").write_text("سلام دنیا|1\nدرود|2\n")
        assert _texts(uri=str(tmp_path / "c.psv")) == ["سلام دنیا", "درود"]
    finally:
        text_formats.cache_clear()


_PIPES = """
from persianmind.text.formats.base import after
from persianmind.text.lines import numbered_lines

class Pipes:
    name, suffixes, compressible = "pipes", (".psv",), True
    def recognises(self, head):
        return False
    def read(self, file, source, skip):
        return after(numbered_lines(file), skip)
    def decode(self, payload, source):
        return {source.text_field: payload.decode().split("|")[0]}
    def check(self, file, source_name, source):
        pass

FORMAT = Pipes()
"""


def test_real_text_is_all_good() -> None:
    quarantine = Quarantine()
    source = Source(uri=str(TEXT_FOLDER))
    assert len(locate("s", source)) == len(TEXT_NAMES)
    records = sum(1 for _ in stream_records("s", source, quarantine))
    assert records == quarantine.seen == 408 and not quarantine.rejected
