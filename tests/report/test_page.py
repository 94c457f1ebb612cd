from __future__ import annotations

import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fixture_run import make_run, write_results
from typer.testing import CliRunner

from persianmind.common.errors import RunFolderError
from persianmind.report.commands import report
from persianmind.report.page import write_report

VOID = {"meta", "br", "link", "img", "hr", "input"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "hafez")


class Reader(HTMLParser):
    """Checks that every tag is closed in order, and keeps attributes, headings and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def words(page: Path) -> str:
    return " ".join(" ".join(read(page).words).split())


def test_the_page_answers_the_three_questions_first(run: Path) -> None:
    shown = words(write_report(run))
    first = shown[: shown.index("Did the languages get better?")]
    assert "−44.0% better than the base model 1.912 → 1.071 bits per byte" in first
    assert "+1.6% worse than the base model: some was forgotten" in first
    assert "CO₂eq" in first and "measured, the rest estimated" in first
    assert "Not in this report" not in shown


SECTIONS = {
    "evaluation", "samples", "energy", "training", "vocabulary", "data", "checkpoints", "recipe",
    "environment", "commands",
}  # fmt: skip
FACTS = (
    "61.00", "10 steps were done again", "232 kg", "arXiv 2307.09288", "49,152", "99.62", "exact duplicate",
    "MIT", "step-220", "136,243,008", "2.13.0", "494.0 g/kWh", "started again", "not counted",
    "persianmind checkpoint verify",
)  # fmt: skip


def test_every_section_is_there(run: Path) -> None:
    page = write_report(run)
    assert {value for _, name, value in read(page).attributes if name == "id"} == SECTIONS
    links = {value for tag, name, value in read(page).attributes if (tag, name) == ("a", "href")}
    assert links and links <= {f"#{identity}" for identity in SECTIONS}
    shown = words(page).lower()
    assert [fact for fact in FACTS if fact.lower() not in shown] == []


def test_one_file_that_asks_for_nothing(run: Path) -> None:
    page = write_report(run)
    html = page.read_text(encoding="utf-8")
    reader = read(page)
    assert not re.search(r"<(script|link|img|iframe|object|embed|form|base)\b", html)
    assert not re.search(r"url\(|@import|@font-face|https?:", html)
    assert {
        name for _, name, _ in reader.attributes if name.startswith("on") or name in ("src", "srcset")
    } == set()
    policies = [value for tag, _, value in reader.attributes if tag == "meta" and "-src" in str(value)]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert page.parent == run and len(html) < 150_000


def test_persian_reads_right_to_left_and_cannot_turn_its_neighbours(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["samples"] = [{"prompt": "سلام", "text": "می‌روم \u202eevil\u0000\u0007", "stage": "pretrain"}]
    (run / "results.json").write_text(json.dumps(results))
    html = write_report(run).read_text(encoding="utf-8")
    assert re.search(r'<bdi lang="fa" dir="rtl" class="fa sample">می‌روم evil</bdi>', html)
    assert "\u200c" in html and "\u202e" not in html and "\u0000" not in html


FILES = ("recipe.yaml", "metrics.jsonl", "results.json", "vocab/expansion.json", "data/poems/manifest.json",
         "checkpoints/step-180/manifest.json", "energy/box1.jsonl")  # fmt: skip
NAMED = {
    "data/poems/manifest.json": "",
    "checkpoints/step-180/manifest.json": "",
}  # others of the kind remain


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_a_stated_gap(run: Path, name: str) -> None:
    (run / name).unlink()
    shown = words(write_report(run))
    expected = NAMED.get(name, name.split("/")[0])
    assert ("Not in this report" in shown) == bool(expected)
    assert expected in shown


JUNK = {
    "binary": b"\xff\xfe\x00\x01" * 40,
    "torn": b'{"perplexity": [{"stage": "ba',
    "list": b"[1, 2, 3]\n",
    "text": b'"only text"\n',
    "deep": b"[" * 5_000,
    "wrong types": json.dumps(
        {
            "perplexity": {"a": 1},
            "samples": 7,
            "pieces": "x",
            "fertility": [1],
            "files": 3,
            "rejected": [],
            "stages": 4,
            "train": 1,
            "model": [],
            "versions": "v",
            "rows": "many",
            "fill": float("nan"),
            "step": "x",
            "facts": 1,
            "energy": 5,
            "kind": "sample",
            "attempt": "1",
            "joules": 3,
            "time": "2026-03-01T06:00:00+00:00",
            "seconds": "s",
        }
    ).encode(),
    "wrong items": json.dumps(
        {
            "perplexity": [{"stage": 3, "fa": 4, "en": {"bits_per_byte": "x"}}, 5],
            "samples": [{}, 1],
            "pieces": [{}, {"text": None, "base_ids": 3}],
            "files": {"a": 1},
            "step": 1,
            "stage": None,
            "fertility": {"fa": 1, "en": {"before": 0, "after": None}},
            "loss": float("inf"),
            "grad_norm": True,
        }
    ).encode(),
}


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.parametrize("name", FILES)
def test_no_damage_stops_the_page(run: Path, name: str, kind: str) -> None:
    (run / name).write_bytes(JUNK[kind])
    shown = words(write_report(run))
    assert "hafez" in shown


def poison(value: Any) -> Any:
    """The same tree with an attack in every text."""
    if isinstance(value, dict):
        return {key: poison(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poison(item) for item in value]
    return f"{value}\"'><script>alert(1)</script>&" if isinstance(value, str) else value


def test_every_text_of_every_file_is_escaped(run: Path) -> None:
    for path in (*run.rglob("*.json"), *run.rglob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        trees = [poison(json.loads(line)) for line in lines]
        for tree in trees:
            tree.update({key: json.loads(lines[0])[key] for key in ("kind", "time") & tree.keys()})
        path.write_text("\n".join(json.dumps(tree) for tree in trees), encoding="utf-8")
    (run / "recipe.yaml").write_text(json.dumps({"name": "<script>alert(1)</script>", "base": '"><script>'}))
    page = write_report(run)
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html and html.count("&lt;script&gt;") > 20
    read(page)


def test_a_run_that_crashed_early_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "energy").mkdir()
    shown = words(write_report(tmp_path))
    assert "not finished" in shown and "not measured yet" in shown and "no energy was recorded" in shown
    assert shown.count("not there, so") >= 5


def test_the_base_alone_is_shown_without_a_change(run: Path) -> None:
    write_results(run, finished=False)
    results = json.loads((run / "results.json").read_text())
    results["perplexity"] = results["perplexity"][:1]
    (run / "results.json").write_text(json.dumps(results))
    shown = words(write_report(run))
    assert "the base model, before training" in shown and "not finished" in shown


def test_several_nodes_are_told_apart(tmp_path: Path) -> None:
    shown = words(write_report(make_run(tmp_path / "two", nodes=("box1", "box2"))))
    assert "By node" in shown and shown.count("box2") >= 2


def test_a_long_run_stays_a_small_page_and_is_quick(run: Path) -> None:
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    with (run / "metrics.jsonl").open("w") as handle:
        for step in range(20_000):
            handle.write(json.dumps({**line, "step": step}) + "\n")
    begun_s = time.process_time()  # the machine may be busy with other things
    assert write_report(run).stat().st_size < 150_000
    assert time.process_time() - begun_s < 5


def test_a_folder_that_is_no_run_is_refused_and_a_failed_write_leaves_the_old_page(run: Path) -> None:
    with pytest.raises(RunFolderError):
        write_report(run.parent)
    page = write_report(run)
    before = page.read_bytes()
    shutil.rmtree(run / "data")
    write_report(run)
    assert page.read_bytes() != before
    assert not list(run.glob(".report*"))


def test_the_verb_writes_the_page_and_says_where(run: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(report)
    result = CliRunner().invoke(app, [str(run), "--json"], catch_exceptions=False)
    found = json.loads(result.output)
    assert Path(found["report"]) == run / "report.html"
    assert found["size_bytes"] == (run / "report.html").stat().st_size
