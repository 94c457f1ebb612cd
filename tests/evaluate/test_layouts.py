"""Published layouts, each a small file of our own making in its exact fields; and files that are none."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import DataError
from persianmind.evaluate.items import ChoiceItem
from persianmind.evaluate.layouts import layouts
from persianmind.evaluate.layouts.inference import ENTAILMENT
from persianmind.evaluate.rows import data_sha256


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_belebele(tmp_path: Path) -> None:
    row = {
        "link": "https://en.wikinews.org/wiki/A", "question_number": 2, "flores_passage": "متن. ",
        "question": "چه شد؟", "mc_answer1": "الف", "mc_answer2": "ب", "mc_answer3": "پ", "mc_answer4": "ت",
        "correct_answer_num": "3", "dialect": "pes_Arab", "ds": "2023-05-03",
    }  # fmt: skip
    read = layouts()["belebele"].read([lines(tmp_path / "pes_Arab.jsonl", [row])])
    assert read.items == [ChoiceItem("چه شد؟", ("الف", "ب", "پ", "ت"), 2, "متن.")]


def test_parsinlu_multiple_choice(tmp_path: Path) -> None:
    """Ids repeat, answers are strings from 1 (one a Persian digit), candidates may be empty or equal."""
    rows = [
        {"question": "یک", "candidates": ["1", "2", "3", "4"], "answer": "۴", "category": "literature"},
        {"question": "دو", "candidates": ["1", "", "3", "4"], "answer": "1", "category": "literature"},
        {"question": "سه", "candidates": ["1", "1", "3", "4"], "answer": "2", "category": "math"},
    ]  # fmt: skip
    read = layouts()["parsinlu-choice"].read([lines(tmp_path / "test.jsonl", rows)])
    assert [item.answer for item in read.items] == [3, 0, 1]
    assert read.counts == {"empty_candidate": 1, "equal_candidates": 1}
    with pytest.raises(DataError, match=r"record 1 is not of the layout parsinlu-choice .*list of 4"):
        layouts()["parsinlu-choice"].read([lines(tmp_path / "x.jsonl", [{**rows[0], "candidates": ["1"]}])])


def test_khayyam(tmp_path: Path) -> None:
    """A key as a float, line breaks in quoted fields, traps as words."""
    path = tmp_path / "khayyam_challenge.csv"
    header = "ID,Question Body,Choice 1,Choice 2,Choice 3,Choice 4,Key,Is Trap,final_category_fa"
    path.write_text(
        f'{header}\n1,"کدام؟\nبگو",1,2,3,4,2.0,True,ریاضی\n2,چند؟,5,6,7,8,4.0,False,ریاضی\n', encoding="utf-8"
    )
    first, second = layouts()["khayyam"].read([str(path)]).items
    assert first == ChoiceItem("کدام؟\nبگو", ("1", "2", "3", "4"), 1, category="ریاضی", subsets=("trap",))
    assert second.answer == 3 and second.subsets == ()


@pytest.mark.parametrize(
    ("name", "answer", "key"), [("global-mmlu", "C", "subject_category"), ("include", 2, "domain")]
)
def test_lettered_exams_as_parquet(tmp_path: Path, name: str, answer: object, key: str) -> None:
    import pyarrow
    import pyarrow.parquet

    row = {"question": " q? ", "option_a": "1", "option_b": "2", "option_c": "3", "option_d": "4",
           "answer": answer, key: "STEM"}  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "test.parquet")
    read = layouts()[name].read([str(tmp_path / "test.parquet")])
    assert read.items == [ChoiceItem("q?", ("1", "2", "3", "4"), 2, category="STEM")]


def test_anybody_s_own_choice(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "candidates": ["x", "y"], "answer": 2},
        {"question": "q", "candidates": ["x", "y", "z"], "answer": "C"},
        {"question": "q", "candidates": ["3", "7"], "answer": "7", "passage": "p", "category": "c"},
    ]
    path = tmp_path / "own.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    items = layouts()["choice"].read([str(path)]).items
    assert [item.answer for item in items] == [1, 2, 1]
    assert (items[2].passage, items[2].category) == ("p", "c")


def test_farstail_is_tab_separated_and_quoted(tmp_path: Path) -> None:
    """A quoted field holds a TAB: a plain split would shift the label."""
    path = tmp_path / "Test-word.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerow(["premise", "hypothesis", "label", "hard(hypothesis)", "hard(overlap)"])
        writer.writerow(['او گفت "آری"\tو رفت', "او رفت", "e", "1", "0"])
        writer.writerow(["آ", "ب", "c", "0", "0"])
        writer.writerow(["آ", "ب", "xx", "0", "0"])
    read = layouts()["farstail"].read([str(path)])
    assert [item.candidates[item.answer] for item in read.items] == [
        ENTAILMENT.candidates[0],
        ENTAILMENT.candidates[2],
    ]
    assert read.items[0].passage == 'او گفت "آری"\tو رفت'
    assert read.items[0].subsets == ("hard(hypothesis)",) and read.counts == {"stray_label": 1}


def test_parsinlu_entailment_has_line_breaks_and_an_unnamed_column(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text(
        ',sent1,sent2,label,source\n0,"یک\nدو",سه,n,natural-wiki\n1,آ,ب,-,natural-voa\n', encoding="utf-8"
    )
    read = layouts()["parsinlu-entailment"].read([str(path)])
    assert len(read.items) == 1 and read.items[0].passage == "یک\nدو" and read.items[0].answer == 1
    assert read.items[0].category == "natural-wiki" and read.counts == {"stray_label": 1}


def test_merged_entailment(tmp_path: Path) -> None:
    path = tmp_path / "test_natural.tsv"
    path.write_text("یک<sep>دو\te\nسه<sep>چهار\t-\n", encoding="utf-8")
    read = layouts()["parsinlu-entailment-merged"].read([str(path)])
    assert len(read.items) == 1 and read.counts == {"stray_label": 1}
    path.write_text("no separator\te\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test_natural.tsv:1 is not premise<sep>hypothesis"):
        layouts()["parsinlu-entailment-merged"].read([str(path)])


def test_parsinlu_paraphrase(tmp_path: Path) -> None:
    rows = [{"q1": "الف", "q2": "ب", "label": "1", "category": "qqp"}, {"q1": "پ", "q2": "ت", "label": 0}]
    items = layouts()["parsinlu-qqp"].read([lines(tmp_path / "test.jsonl", rows)]).items
    assert [item.candidates[item.answer] for item in items] == ["بله", "خیر"]


def test_aligned_lines(tmp_path: Path) -> None:
    """Files of lines: U+2028 within a line ends none; sides that are empty are counted."""
    (tmp_path / "a").write_text("one\u2028still one\ntwo\n\n", encoding="utf-8")
    (tmp_path / "b").write_text("یک\nدو\nسه\n", encoding="utf-8")
    read = layouts()["lines"].read([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [item.target for item in read.items] == ["یک", "دو"] and read.counts == {"empty_side": 1}
    (tmp_path / "b").write_text("یک\n", encoding="utf-8")
    with pytest.raises(DataError, match="not aligned"):
        layouts()["lines"].read([str(tmp_path / "a"), str(tmp_path / "b")])


def test_pairs_as_the_hub_has_them(tmp_path: Path) -> None:
    rows = [{"translation": {"en": "one", "fa": "یک"}}, {"source": "two", "target": "دو"}]
    items = layouts()["translations"].read([lines(tmp_path / "x.jsonl", rows)]).items
    assert [(item.source, item.target) for item in items] == [("one", "یک"), ("two", "دو")]


def test_pests_is_an_excel_sheet(tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    for name, score in (("train", 1), ("dev", 2.5), ("test", 4)):
        sheet = book.create_sheet(name)
        sheet.append(["farsiSentence", "englishSentence", "score"])
        sheet.append(["سلام", "hello", score])
    book.remove(book["Sheet"])
    book.save(tmp_path / "FaEnDataSetV7.xlsx")
    place = [str(tmp_path / "FaEnDataSetV7.xlsx")]
    assert [item.score for item in layouts()["pests"].read(place).items] == [4.0]
    assert [item.score for item in layouts()["pests-dev"].read(place).items] == [2.5]
    del book["test"]
    book.save(tmp_path / "FaEnDataSetV7.xlsx")
    with pytest.raises(DataError, match="has no sheet 'test'; it has train, dev"):
        layouts()["pests"].read(place)


HOSTILE = [
    ("pointer.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    ("cut.jsonl", b'{"question": "q", "candid', r"cut\.jsonl:1 is no JSON"),
    ("list.jsonl", b"[1, 2]\n", "record 1 is no JSON object"),
    ("latin.jsonl", '{"question": "سلام"}'.encode("cp1256"), "is not UTF-8"),
    ("other.jsonl", b'{"text": "x"}\n', r"not of the layout choice .* it has the fields text"),
    ("empty.jsonl", b"\n", "no item of the layout choice"),
    ("answer.jsonl", b'{"question": "q", "candidates": ["a", "b"], "answer": 3}\n', "none of 2 candidates"),
    ("broken.jsonl.gz", b"\x1f\x8b\x08\x00broken", "is damaged"),
    ("table.parquet", b"PAR1nothing", "no Parquet file"),
    ("sheet.xlsx", b"PK nothing", "no Excel file"),
    ("what.pdf", b"%PDF", "a test is .jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), HOSTILE)
def test_files_that_are_none_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        layouts()["choice"].read([str(tmp_path / name)])
    assert "\n" not in str(error.value)


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "a").write_bytes(b"abc")
    assert data_sha256([str(tmp_path / "a")]) == hashlib.sha256(b"abc").hexdigest()
