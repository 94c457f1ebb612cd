"""What a folder holds beside its text is listed with size and reason, and not read."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pytest

from persianmind.common.errors import SourceError
from persianmind.recipe import Source
from persianmind.text.sources.listing import other_splits, why_no_text
from persianmind.text.sources.locate import list_source, locate
from persianmind.text.stream import stream_records
from tests.text.helpers import good, gz

BODY = good(0)


def names(uri: Path | str) -> list[str]:
    return [file.name for file in locate("s", Source(uri=str(uri)))]


def reasons(uri: Path | str) -> dict[str, str]:
    return {one.path: one.reason for one in list_source("s", Source(uri=str(uri))).left_out}


def put(folder: Path, *names: str, content: bytes = BODY) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tar(content: bytes) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        entry = tarfile.TarInfo("a.jsonl")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return body.getvalue()


def zipped(content: bytes) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("a.jsonl", content)
    return body.getvalue()


def test_what_is_not_the_data_is_listed_with_size_and_reason(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", "deep/b.jsonl")
    put(tmp_path, "._a.jsonl", ".ipynb_checkpoints/a.jsonl", ".git/x/y.jsonl", "__MACOSX/a.jsonl")
    put(tmp_path, "LICENSE.txt", "deep/README.md", "dataset_info.json", "NOTICE", "license-cc-by.txt")
    put(tmp_path, "notes.docx", "weights.bin", content=b"\0\1\2")
    put(tmp_path, "empty.jsonl.gz", "empty.jsonl", content=b"")
    assert names(tmp_path) == ["a.jsonl", "deep/b.jsonl"]
    found = reasons(tmp_path)
    hidden = {path for path, reason in found.items() if reason.startswith("hidden")}
    assert hidden == {"._a.jsonl", ".ipynb_checkpoints/", ".git/", "__MACOSX/"}
    about = {path for path, reason in found.items() if reason.startswith("about")}
    assert about == {"LICENSE.txt", "deep/README.md", "dataset_info.json", "NOTICE", "license-cc-by.txt"}
    assert found["notes.docx"] == "of no known kind (.docx)"
    assert found["empty.jsonl.gz"] == found["empty.jsonl"] == "empty: 0 bytes"
    sizes = {one.path: one.size_bytes for one in list_source("s", Source(uri=str(tmp_path))).left_out}
    assert sizes["._a.jsonl"] == sizes[".git/"] == len(BODY) and sizes["weights.bin"] == 3


FOREIGN = [
    ("a.zip", zipped(BODY), "a zip archive"),
    ("a.jsonl", zipped(BODY), "a zip archive"),
    ("a.tar", tar(BODY), "a tar archive: unpack it"),
    ("a.tar.gz", gz(tar(BODY)), "a tar archive: unpack it"),
    ("a.pdf", b"%PDF-1.7", "a PDF: extract its text"),
    ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ("a.rar", b"Rar!\x1a\x07", "a rar archive"),
    ("a.doc", b"\xd0\xcf\x11\xe0\xa1", "a document of an office program"),
    ("a.parquet.gz", gz(b"PAR1" + BODY), "a table within a compressed file"),
    ("a.bin", b"\x7fELF\0", "of no known kind (.bin)"),
    ("a", b"some words", "of no known kind (no suffix)"),
    ("a.docx.gz", gz(b"some words"), "of no known kind (.docx.gz)"),
]


@pytest.mark.parametrize(("name", "content", "reason"), FOREIGN, ids=[f"{n} {r}" for n, _, r in FOREIGN])
def test_foreign_files_say_what_to_do(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    """In a folder the file is listed; named alone, or alone in its folder, it is an error of one line."""
    put(tmp_path, name, content=content)
    for uri in (tmp_path / name, tmp_path):
        with pytest.raises(SourceError) as error:
            locate("s", Source(uri=str(uri)))
        assert reason in str(error.value) and "\n" not in str(error.value)
    put(tmp_path, "b.jsonl")
    assert reason in reasons(tmp_path)[name]


def test_the_content_says_the_kind(tmp_path: Path) -> None:
    """Whatever the name: a missing, wrong or second suffix is what downloads make of one."""
    put(tmp_path, "plain.jsonl.gz", "array.jsonl", "part-00000", "b.json")
    (tmp_path / "array.jsonl").write_bytes(b"[" + BODY + b"]")
    put(tmp_path, "packed.jsonl", "c4-fa.tfrecord-00000.json.gz", content=gz(BODY))
    assert len(names(tmp_path)) == 6 and not reasons(tmp_path)
    texts = [record.fields["text"] for record in stream_records("s", Source(uri=str(tmp_path)))]
    assert len(texts) == 6 and len({*texts}) == 1


def test_splits_of_a_snapshot(tmp_path: Path) -> None:
    put(tmp_path, "data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl")
    put(tmp_path, "data/test-00000-of-00001.jsonl", "data/validation-00000-of-00001.jsonl")
    put(tmp_path, "fa/dev/a.jsonl", "fa/train/a.jsonl", "fa/train/test-cases.jsonl", "extra.jsonl")
    assert names(tmp_path) == [
        "data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "extra.jsonl",
        "fa/train/a.jsonl", "fa/train/test-cases.jsonl",
    ]  # fmt: skip
    found = reasons(tmp_path)
    assert set(found) == {
        "data/test-00000-of-00001.jsonl", "data/validation-00000-of-00001.jsonl", "fa/dev/a.jsonl",
    }  # fmt: skip
    assert found["fa/dev/a.jsonl"].startswith("the validation split: only the training split is read")
    # Named, it is meant.
    assert names(tmp_path / "data" / "test-*.jsonl") == ["test-00000-of-00001.jsonl"]
    assert names(tmp_path / "fa" / "dev" / "a.jsonl") == ["a.jsonl"]
    assert names(tmp_path / "fa" / "dev") == ["a.jsonl"]
    assert "data/test-00000-of-00001.jsonl" in reasons(tmp_path / "data" / ".." / "*" / "*.jsonl")


def test_a_word_is_a_split_only_where_it_stands_as_one() -> None:
    texts = ["test-driven-development.jsonl", "contest.jsonl", "devotion.jsonl", "validity-of-tests.jsonl"]
    assert not other_splits(texts)
    assert set(other_splits(["wiki_test.jsonl", "test.jsonl.gz", "a/eval/x.jsonl", *texts])) == {
        "wiki_test.jsonl", "test.jsonl.gz", "a/eval/x.jsonl",
    }  # fmt: skip
    assert set(other_splits(["train_fa.jsonl", "test_fa.jsonl", "other/test_fa.jsonl"])) == {"test_fa.jsonl"}
    assert not other_splits(["train/test_fa.jsonl"])


def test_a_folder_of_test_files_alone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    put(tmp_path, "test.jsonl")
    with pytest.raises(SourceError, match=r"no text to train on \(test.jsonl is the test split.*name it"):
        locate("s", Source(uri=str(tmp_path)))


def test_remote_folders_are_listed_alike() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.jsonl", "LICENSE.txt", ".hid/b.jsonl", "x.docx", "test/c.jsonl"):
        memory.pipe(f"/listed/{name}", BODY)
    assert names("memory://listed") == ["a.jsonl"]
    assert names("memory://listed/.hid/b.jsonl") == ["b.jsonl"]  # named, it is meant
    assert set(reasons("memory://listed")) == {"LICENSE.txt", ".hid/b.jsonl", "x.docx", "test/c.jsonl"}


def test_links_to_folders_are_named(tmp_path: Path) -> None:
    put(tmp_path / "other", "b.jsonl")
    put(tmp_path / "set", "a.jsonl")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "other")
    assert names(tmp_path / "set") == ["a.jsonl"]
    assert reasons(tmp_path / "set")["more/"].startswith("a link to a folder")


def test_about_files_are_told_by_their_whole_first_word() -> None:
    assert why_no_text("readme.txt") and why_no_text("x/COPYING")
    assert not why_no_text("noticeboard.txt") and not why_no_text("license.jsonl")
