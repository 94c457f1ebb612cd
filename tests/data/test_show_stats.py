"""`data show` and `data stats`: what the model will see; what sources hold, against counts by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import SourceError
from persianmind.data.options import recipe_of
from persianmind.data.show import lines_of, shown_records
from persianmind.data.shown import CLOSE, OPEN
from persianmind.data.stats import source_stats
from persianmind.recipe import Recipe
from persianmind.recipe.loading import parse_recipe
from persianmind.tokenizer import FolderTokenizer
from tests.data.helpers import sentences, write_jsonl
from tests.data.test_commands import as_json, persianmind_data


def instructions(folder: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"instruction": "یک", "output": "پاسخ نخست"},
        {"instruction": "دو"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]},
        {"instruction": "سه", "output": "پاسخ دوم", "history": [["پیش", "از این"]]},
    ]
    write_jsonl(folder / "i.jsonl", rows)
    return folder / "i.jsonl"


def plan_of(path: Path, kind: str = "text") -> Recipe:
    return recipe_of(None, [str(path)], kind, "fa", "text", [])


def test_targets_are_the_answers_and_their_ends(tmp_path: Path, bpe_dir: Path) -> None:
    records = shown_records(plan_of(instructions(tmp_path), "instruction"), bpe_dir, first=1, count=9)
    assert [one.verdict for one in records] == [
        "trained on", "rejected: missing_field", "dropped: tool_turn", "trained on",
    ]  # fmt: skip
    first, _, _, last = records
    assert last.document is not None and first.document is not None
    learnt = [last.document.text[begin:end].strip() for begin, end in last.document.spans]
    assert learnt == ["از این<|endoftext|>", "پاسخ دوم<|endoftext|>"]
    ids = FolderTokenizer(bpe_dir).encode([first.document.text], parse_special=True)[0]
    assert len(ids) == first.document.tokens > first.document.targets > 0
    shown = "\n".join(lines_of(last))
    assert f"{OPEN} پاسخ دوم<|endoftext|>{CLOSE}" in shown and shown.startswith("--- i.jsonl:4: ")
    assert list(lines_of(records[1]))[1].startswith('{"instruction": "دو"')


def test_of_a_text_all_but_the_first_token_is_learnt(
    tmp_path: Path, bpe_dir: Path, metaspace_dir: Path
) -> None:
    write_jsonl(tmp_path / "t.jsonl", [{"text": "متن نخست"}])
    for tokenizer, first in ((bpe_dir, None), (metaspace_dir, "<s>")):
        (one,) = shown_records(plan_of(tmp_path / "t.jsonl"), tokenizer, first=1, count=3)
        shown = one.document
        assert shown is not None and shown.tokens == shown.targets + 1
        assert len(shown.spans) == 1 and shown.spans[0][1] == len(shown.text)
        assert first is None or shown.text[: shown.spans[0][0]].strip() == first
        assert "متن نخست" in shown.text


def test_a_record_past_the_end_is_an_error(tmp_path: Path, bpe_dir: Path) -> None:
    with pytest.raises(SourceError, match=r"i.jsonl has no record 9; give a lower --record"):
        shown_records(plan_of(instructions(tmp_path), "instruction"), bpe_dir, first=9, count=1)


def test_stats_against_counting_by_hand(tmp_path: Path, bpe_dir: Path) -> None:
    texts = sentences(40)
    write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in [*texts, texts[3], texts[3] + " "]])
    write_jsonl(tmp_path / "b.jsonl", [{"text": texts[5]}, {"text": "This text is written in English."}, {}])
    tree = {
        "name": "d", "base": "none", "data": {"seq_len": 16},
        "sources": {name: {"uri": str(tmp_path / f"{name}.jsonl"), "language": "fa"} for name in "ab"},
        "stages": [{"name": "all", "sources": {"a": 1.0}, "epochs": 1.0}],
    }  # fmt: skip
    found = source_stats(parse_recipe(tree, place="here"), bpe_dir)
    tokenizer = FolderTokenizer(bpe_dir)
    every = [*texts, texts[3], texts[3] + " "]
    lengths = [len(ids) for ids in tokenizer.encode_documents(every)]
    a, b = found["a"], found["b"]
    assert (a.documents, a.tokens, a.targets) == (42, sum(lengths), sum(lengths) - 42)
    assert a.words == sum(len(text.split()) for text in every)
    assert a.tokens_per_word == pytest.approx((sum(lengths) - 42) / a.words)
    assert a.token_percentiles[-1] == max(lengths) and a.token_percentiles[0] in lengths
    assert a.documents_over_seq_len == sum(length > 16 for length in lengths)
    assert (a.duplicates, a.duplicates_of_other_sources) == (2, 0)
    assert (b.documents, b.duplicates, b.duplicates_of_other_sources) == (2, 0, 1)
    assert b.skipped == {"missing_field": 1} and sum(a.languages.values()) == pytest.approx(1.0)


def test_by_command(tmp_path: Path, bpe_dir: Path) -> None:
    path = instructions(tmp_path)
    flags = ["--tokenizer", bpe_dir, "--kind", "instruction"]
    shown = as_json("show", path, "--count", "1", *flags)["records"][0]
    assert shown["place"] == "i.jsonl:1"
    assert 0 < shown["document"]["targets"] < shown["document"]["tokens"]
    assert OPEN in persianmind_data("show", path, *flags).stdout
    stats = as_json("stats", "--source", path, *flags)["sources"]["source"]
    assert stats["documents"] == 2 and stats["skipped"] == {"missing_field": 1, "tool_turn": 1}
    table = persianmind_data("stats", "--source", path, *flags).stdout
    assert "tokens per word" in table


def test_what_is_not_read_stands_in_check_build_and_manifest(tmp_path: Path, bpe_dir: Path) -> None:
    folder = tmp_path / "set"
    write_jsonl(folder / "a.jsonl", [{"text": text} for text in sentences(30)])
    write_jsonl(folder / "test.jsonl", [{"text": "آزمون"}])
    (folder / "LICENSE.txt").write_text("MIT\n")
    checked = as_json("check", "--source", folder)["sources"]["source"]
    assert [one["path"] for one in checked["files_left_out"]] == ["LICENSE.txt", "test.jsonl"]
    lines = persianmind_data("check", "--source", folder).stdout.splitlines()
    assert any("not read: test.jsonl (" in line and "the test split" in line for line in lines)
    flags = ["build", "--source", folder, "--tokenizer", bpe_dir, "--out", tmp_path / "out"]
    built = persianmind_data(*flags)
    assert built.returncode == 0 and "not read: LICENSE.txt (4 bytes): about the data" in built.stderr
    manifest = json.loads((tmp_path / "out" / "source" / "manifest.json").read_text())
    assert manifest["files_left_out"][0] == {
        "path": "LICENSE.txt", "size_bytes": 4, "reason": "about the data, not the data",
    }  # fmt: skip
    assert as_json(*flags)["sources"]["source"]["files_left_out"] == manifest["files_left_out"]


def test_damaged_files_stop_check_and_build(tmp_path: Path, bpe_dir: Path) -> None:
    import gzip

    folder = tmp_path / "set"
    folder.mkdir()
    content = gzip.compress("".join(json.dumps({"text": one}) + "\n" for one in sentences(300)).encode())
    for name in ("a", "b"):
        (folder / f"{name}.jsonl.gz").write_bytes(content[:-30])
    finding = as_json("check", "--source", folder, returncode=1)["sources"]["source"]
    assert finding["verdict"].startswith(f"2 of 2 files are damaged ({2 * len(content) - 60:,} of ")
    assert finding["damage"]["files"] == ["a.jsonl.gz: truncated_gz", "b.jsonl.gz: truncated_gz"]
    flags = ["build", "--source", folder, "--tokenizer", bpe_dir, "--out", tmp_path / "out"]
    built = persianmind_data(*flags)
    assert built.returncode != 0 and "a.jsonl.gz: truncated_gz" in built.stderr
    assert "data.max_damaged_file_ratio=0.05; fetch or pack them again" in built.stderr
    allowed = as_json(*flags, "data.max_damaged_file_ratio=1")["sources"]["source"]
    assert allowed["damaged_bytes"] == 2 * len(content) - 60 and allowed["documents"] > 0
