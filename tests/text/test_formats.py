"""Arrays, tables and Arrow files: read as the libraries that wrote them do, and damage is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from persianmind.common.errors import SourceError
from persianmind.recipe import Source
from persianmind.text.formats import json_array
from persianmind.text.stream import check_sources, read_records
from tests.text.helpers import GOOD, read

TEXTS = [*GOOD, 'a "quoted", text\nof two lines', '[{"text": 1}]', "tab\there", "آخر \\u200c"]
ROWS = [{"n": i, "text": text} for i, text in enumerate(TEXTS)]


def array(rows: Any, **options: Any) -> bytes:
    return json.dumps(rows, ensure_ascii=False, **options).encode()


def table(rows: list[list[str]], **options: Any) -> bytes:
    body = io.StringIO()
    csv.writer(body, **options).writerows(rows)
    return body.getvalue().encode()


CELLS = [["n", "text"], *[[str(row["n"]), row["text"]] for row in ROWS]]
WELL_FORMED = [
    ("c.json", array(ROWS)),
    ("c.json", array(ROWS, indent=2)),
    ("c.jsonl", array(ROWS)),
    ("c.json", b"\xef\xbb\xbf \n" + array(ROWS)),
    ("c.json", b"".join(array(row) + b"\n" for row in ROWS)),
    ("c.json.gz", gzip.compress(array(ROWS))),
    ("c.csv", table(CELLS)),
    ("c.csv", table(CELLS, quoting=csv.QUOTE_ALL, lineterminator="\n")),
    ("c.csv", b"\xef\xbb\xbf" + table(CELLS, delimiter=";")),
    ("c.csv.gz", gzip.compress(table(CELLS))),
    ("c.tsv", table(CELLS, delimiter="\t")),
]


@pytest.mark.parametrize(("name", "content"), WELL_FORMED)
def test_well_formed_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    texts, quarantine, _ = read(tmp_path / name)
    assert texts == TEXTS and not quarantine.rejected
    source = Source(uri=str(tmp_path / name))
    records = list(read_records("s", source))
    for i, record in enumerate(records):
        assert list(read_records("s", source, record.after)) == records[i + 1 :]


def test_arrays_whose_items_span_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a few bytes at a time: characters, numbers, escapes and items are cut everywhere."""
    content = array([*ROWS, {"text": "شماره", "n": 12345.678e9}, {"text": "پایان " * 300}], indent=1)
    for size in (1, 2, 3, 7, 64):
        chunks = iter([content[i : i + size] for i in range(0, len(content), size)])
        found = [json.loads(item) for _, item in json_array.array_items(chunks)]  # type: ignore[arg-type]
        assert found == json.loads(content)
    assert list(json_array.array_items(iter([b"[ \n ]"]))) == []


BROKEN = [
    (array(ROWS)[:-9], len(ROWS) - 1, "corrupt_json"),
    (array(ROWS[:3])[:-1], 3, "corrupt_json"),
    (b'[{"text": "a b"} {"text": "c"}]', 1, "corrupt_json"),
    (b'[{"text": "a b"}, {text: "c"}]', 1, "corrupt_json"),
    (array(ROWS[:2]) + b"\n" + array(ROWS[2:]), 2, "corrupt_json"),
    (b"[" + b"[" * 100_000, 0, "nested_too_deep"),
    (b'{\n  "data": [\n{"text": "a"}]}', 0, "one_object"),
]


@pytest.mark.parametrize(("content", "kept", "reason"), BROKEN, ids=[str(i) for i in range(len(BROKEN))])
def test_broken_arrays(tmp_path: Path, content: bytes, kept: int, reason: str) -> None:
    (tmp_path / "c.json").write_bytes(content)
    texts, quarantine, _ = read(tmp_path / "c.json")
    assert len(texts) == kept and dict(quarantine.rejected) == {reason: 1}
    assert quarantine.damage.files == [f"c.json: {reason}"]
    assert quarantine.damage.size_bytes == len(content)


def test_items_are_judged_one_by_one(tmp_path: Path) -> None:
    content = (
        b'[{"text": "a b"}, 3, "x", {"text": NaN}, {"text": null}, {"text": "\\ud800"}, {"text": "c d"}]'
    )
    (tmp_path / "c.json").write_bytes(content)
    texts, quarantine, kept = read(tmp_path / "c.json")
    assert texts == ["a b", "c d"] and [one["line"] for one in kept] == [2, 3, 4, 5, 6]
    assert dict(quarantine.rejected) == {
        "not_an_object": 2, "nan_or_infinity": 1, "null_text": 1, "lone_surrogate": 1,
    }  # fmt: skip


def test_an_item_past_the_limit_ends_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "MAX_RECORD_BYTES", 1 << 12)
    (tmp_path / "c.json").write_bytes(array([{"text": "a b"}, {"text": "x" * (1 << 22)}]))
    texts, quarantine, _ = read(tmp_path / "c.json")
    assert texts == ["a b"] and dict(quarantine.rejected) == {"record_too_long": 1}


def test_tables_with_faults(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes('n,text\n1,سلام\n2\n\n3,a,b\n4,"'.encode() + b'\xd3"\n5,"ok then"\n')
    texts, quarantine, kept = read(tmp_path / "c.csv")
    assert texts == ["سلام", "ok then"]
    assert dict(quarantine.rejected) == {"other_columns": 2, "invalid_utf8": 1}
    assert [one["line"] for one in kept] == [3, 5, 6]
    (tmp_path / "c.csv").write_bytes(b'n,text\n1,good one\n2,"never closed\n3,x\n')
    texts, quarantine, _ = read(tmp_path / "c.csv")
    assert texts == ["good one"] and dict(quarantine.rejected) == {"corrupt_csv": 1}


def test_quotes_in_tab_separated_text_are_text(tmp_path: Path) -> None:
    """As Common Voice has them; where every row parses with quotes they are quotes."""
    (tmp_path / "c.tsv").write_text('text\tn\n"او گفت\t1\nنقل "قول" است\t2\n')
    assert read(tmp_path / "c.tsv")[0] == ['"او گفت', 'نقل "قول" است']
    (tmp_path / "c.tsv").write_text('text\tn\n"او\tگفت"\t1\n')
    assert read(tmp_path / "c.tsv")[0] == ["او\tگفت"]


def test_a_table_without_the_column_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("body,url\na,b\n")
    with pytest.raises(SourceError, match="no column 'text'; set text_field to one of: body, url"):
        check_sources({"s": Source(uri=str(tmp_path / "c.csv"))})
    with pytest.raises(SourceError, match=r"no column 'passage'; set columns.output"):
        source = Source(uri=str(tmp_path / "c.csv"), kind="instruction", columns={"output": "passage"})
        check_sources({"s": source})


def test_a_dataset_folder_is_read_as_it_was_saved(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    sets = {"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])}
    DatasetDict(sets).save_to_disk(str(tmp_path / "set"), num_proc=None)
    texts, quarantine, _ = read(tmp_path / "set")
    assert texts == TEXTS and not quarantine.rejected


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_of_both_kinds_and_its_damage(tmp_path: Path, kind: str) -> None:
    rows = pa.table({"text": [f"متن {i}" for i in range(2000)]})
    path = tmp_path / "c.arrow"
    new: Any = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with new(str(path), rows.schema) as writer:
        for batch in rows.to_batches(max_chunksize=300):
            writer.write_batch(batch)
    assert read(path)[0] == rows["text"].to_pylist()
    source = Source(uri=str(path))
    records = list(read_records("s", source))
    for i in (0, 255, 299, 300, 301, 1999):
        assert list(read_records("s", source, records[i].after)) == records[i + 1 :]
    content = path.read_bytes()
    for cut in (len(content) // 2, len(content) - 8):
        path.write_bytes(content[:cut])
        texts, quarantine, _ = read(path)
        assert dict(quarantine.rejected) == {"corrupt_arrow": 1}
        assert texts == rows["text"].to_pylist()[: len(texts)] and (kind == "file" or len(texts) >= 600)


# It reads no array behind a byte order mark.
FOR_DATASETS = [
    (name, content)
    for name, content in WELL_FORMED
    if name.endswith(("csv", "json")) and not (name == "c.json" and content.startswith(b"\xef\xbb\xbf"))
]


@pytest.mark.parametrize(("name", "content"), FOR_DATASETS)
def test_datasets_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    """From outside: `datasets` gives these texts too (told the delimiter, which it cannot guess)."""
    from datasets import load_dataset

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / name).write_bytes(content)
    told = {"sep": ";"} if b";text" in content else {}
    kind = "csv" if name.endswith("csv") else "json"
    found = load_dataset(
        kind, data_files=str(tmp_path / name), split="train", cache_dir=str(tmp_path), **told
    )
    assert [text.replace("\r\n", "\n") for text in found["text"]] == read(tmp_path / name)[0]
