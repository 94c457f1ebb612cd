"""The page of built runs: states that the tiny run cannot be in, and what holds for every page."""

from __future__ import annotations

import json
import re
import time
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from persianmind.common.checksum import dump_checked_line
from persianmind.common.errors import RunFolderError
from persianmind.report.commands import report
from persianmind.report.page import write_report
from persianmind.run.folder import RunFolder
from persianmind.run.log import update_results
from persianmind.run.records import SampleText
from tests.report.built_run import BITS, build_run, step_record, write_lines
from tests.report.parsed import gaps, parse, sections

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return build_run(tmp_path / "run")


def test_the_page_answers_the_three_questions_first(run: RunFolder) -> None:
    page = parse(write_report(run.path))
    assert next(iter(sections(page))) == "verdict"
    persian, english, spent = (card.text for card in page.all("div", "card"))
    assert persian == (
        "Persian, held-out text 44.0% fewer bits per byte: it predicts the text better "
        "1.912 → 1.071 bits per byte"
    )
    assert english == (
        "English, held-out text 1.6% more bits per byte; the intervals overlap, so it may be chance "
        "0.987 → 1.003 bits per byte"
    )
    # 19 intervals of 60 s in training (two GPUs at 285 W, the processor at 65 W), 2 others (GPUs at 20 W).
    joules, measured = 60 * (19 * 635 + 2 * 105), 60 * (19 * 570 + 2 * 40)
    kwh = joules / 3.6e6
    low, high = (measured * (1 + 0.05 * s) + (joules - measured) * (1 + 0.5 * s) for s in (-1, 1))
    assert spent == (
        f"Spent {1000 * kwh:.3g} Wh {measured / 3600:.3g} Wh measured + {(joules - measured) / 3600:.3g} Wh "
        f"estimated ({low / 3600:.3g} Wh to {high / 3600:.3g} Wh) CO₂eq: {kwh * 1.4 * 494:.3g} g, "
        f"{kwh * 1.4 * 0.08:,.2f} USD"
    )
    assert page.all("span", "state")[0].text == "finished"


def test_a_change_within_noise_is_called_unchanged_and_coloured_flat(tmp_path: Path) -> None:
    page = parse(write_report(build_run(tmp_path / "run", stages=2).path))
    english = page.all("div", "card")[1].text
    assert "unchanged bits per byte, as the base model" in english
    row = sections(page)["evaluation"].all("tr")[2]
    assert [(span.text, span.attributes["class"]) for span in row.all("span", "delta")] == [
        ("−41.4%", "delta down"), ("+0.2%", "delta flat"),
    ]  # fmt: skip


def test_the_base_alone_is_shown_without_a_change(tmp_path: Path) -> None:
    page = parse(write_report(build_run(tmp_path / "run", stages=1).path))
    persian, english, _ = (card.text for card in page.all("div", "card"))
    assert persian == ("Persian, held-out text – not scored after training yet the base: 1.912 bits per byte")
    assert english == ("English, held-out text – not scored after training yet the base: 0.987 bits per byte")
    assert not sections(page)["evaluation"].all("svg")
    assert page.all("span", "state")[0].text == "not finished"


def test_a_run_that_crashed_early_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "energy").mkdir()
    page = parse(write_report(tmp_path))
    assert set(sections(page)) == {"verdict", "use", "checkpoints", "commands"}
    assert [card.all("p", "verdict")[0].text for card in page.all("div", "card")] == [
        "not measured yet", "not measured yet", "no energy was recorded",
    ]  # fmt: skip
    assert [gap.partition(":")[0] for gap in gaps(page)] == [
        "recipe.yaml", "results.json", "metrics.jsonl", "vocab/expansion.json", "data/*/manifest.json",
        "energy/*.jsonl",
    ]  # fmt: skip
    assert "None is stored in this run folder." in sections(page)["checkpoints"].text


def test_steps_and_energy_of_a_crash_are_counted_and_said(run: RunFolder) -> None:
    shown = sections(parse(write_report(run.path)))
    training, energy = shown["training"], shown["cost"]
    faults = training.panel("Faults and restarts")
    assert faults.facts() == {
        "starts of the run": "2", "steps done again": "10", "steps that moved no weight": "0",
    }  # fmt: skip
    assert [cells[1:] for cells in faults.table().values()] == [
        ["the beginning", "the training process is gone"], ["step 80", "stopped"],
    ]  # fmt: skip
    numbers = training.panel("In numbers").facts()
    assert numbers["optimizer steps"] == "180" and numbers["tokens"] == "1,474,560"
    assert numbers["training time"] == "1 h 3 min" and numbers["of them useful"] == "99.5 %"
    assert numbers["joules per thousand tokens"] == f"{19 * 60 * 635 / 1474.56:.1f}"
    account = energy.panel("The account").facts()
    assert account["done again after a crash"] == f"{635 * 60 / 3600:.3g} Wh"
    assert account["starts of the run"] == "2" and account["money"].endswith(" USD")
    gained = (BITS["base"][0] - BITS["instruct"][0]) / 0.1
    used = 60 * (19 * 635 + 2 * 105) / 3600
    assert account["for each tenth of a bit per byte gained in Persian"] == f"{used / gained:.3g} Wh"
    assert account["as much as"] == f"brings {used / 93.02:.2g} litres of water from 20 °C to the boil"
    assert energy.panel("Power over time").text.count("started again") == 2  # wide and on phones


def test_measured_and_estimated_parts_are_drawn_apart(run: RunFolder) -> None:
    bars = sections(parse(write_report(run.path)))["cost"].panel("By part").all("div", "bar")
    solid = {
        bar.all("span", "bar-name")[0].text: bar.all("span", "solid")[0].attributes["style"] for bar in bars
    }
    assert solid == {"gpu0": "width:100.00%", "gpu1": "width:100.00%", "cpu": "width:0.00%"}
    # By stage and node too: of two GPUs at 285 W, or idle at 20 W, beside a processor that is taken for 65 W.
    page = sections(parse(write_report(run.path)))["cost"]
    ratios = {"prepare:data": 40 / 105, "evaluate:base": 40 / 105, "pretrain": 570 / 635}
    stages = {bar.all("span", "bar-name")[0].text: bar for bar in page.panel("By stage").all("div", "bar")}
    for name, ratio in {**ratios, "instruct": 570 / 635}.items():
        assert stages[name].all("span", "solid")[0].attributes["style"] == f"width:{100 * ratio:.2f}%"


def test_several_nodes_are_told_apart(tmp_path: Path) -> None:
    energy = sections(parse(write_report(build_run(tmp_path / "run", nodes=("box1", "box2")).path)))["cost"]
    bars = energy.panel("By node").all("span", "bar-name")
    assert [bar.text for bar in bars] == ["box1", "box2"]
    chart = energy.panel("Power over time")
    joules = 60 * (19 * 635 + 2 * 105)
    for bar in energy.panel("By node").all("div", "bar"):
        assert bar.all("span", "bar-value")[0].text == f"{joules / 3600:.3g} Wh"
        assert (
            bar.all("span", "solid")[0].attributes["style"]
            == f"width:{6000 * (19 * 570 + 2 * 40) / joules:.2f}%"
        )
    assert len(chart.all("svg")[0].all("path", "line")) == 2 and "box2" in chart.all("div", "legend")[0].text


def test_one_file_that_asks_for_nothing(run: RunFolder) -> None:
    path = write_report(run.path)
    page, html = parse(path), path.read_text(encoding="utf-8")
    assert not {node.tag for node in page.walk()} & {
        "script", "link", "img", "iframe", "object", "embed", "form", "base",
    }  # fmt: skip
    assert not re.search(r"url\((?!data:font/woff2;)|@import|https?:", html)
    names = {name for node in page.walk() for name in node.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "srcset"}
    policies = [
        m.attributes["content"] for m in page.all("meta") if "-src" in m.attributes.get("content", "")
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; font-src data:"]


def test_the_style_sheet_arrives_as_it_is(run: RunFolder) -> None:
    style = parse(write_report(run.path)).all("style")[0].raw
    assert style.strip() == (ROOT / "persianmind/report/style.css").read_text(encoding="utf-8").strip()


def test_every_file_of_the_page_is_in_the_wheel() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folder = ROOT / "persianmind/report"
    shipped = {
        path for pattern in options["package-data"]["persianmind.report"] for path in folder.glob(pattern)
    }
    others = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert others and shipped == others


def test_persian_reads_right_to_left_and_cannot_turn_its_neighbours(run: RunFolder) -> None:
    sample = SampleText(prompt="سلام", text="می‌روم \u202eevil\u0000\u0007 \u2066", stage="pretrain")
    update_results(run, samples=[sample])
    path = write_report(run.path)
    answer = sections(parse(path))["samples"].all("bdi")[1]
    assert answer.attributes == {"lang": "fa", "dir": "rtl", "class": "native sample"}
    assert answer.raw == "می‌روم evil "  # the ZWNJ stays
    assert not re.search("[\u0000-\u0008\u202a-\u202e\u2066-\u2069]", path.read_text(encoding="utf-8"))


def test_a_long_run_stays_a_small_page_that_is_made_at_once(run: RunFolder) -> None:
    """Of 15,000 steps with five sources; 3 s of the processor, whoever else uses it."""
    sources = {f"source-{number}": 1.2 + number / 10 for number in range(5)}
    changes = {"bits_per_byte_by_source": sources, "bits_per_byte_by_language": {"fa": 1.5, "en": 0.9}}
    changes |= {"mfu": 0.3, "peak_memory_bytes": 2**33, "loss_by_source": sources}
    steps = [step_record("pretrain", step).model_copy(update=changes) for step in range(1, 15_001)]
    write_lines(run.metrics, steps)
    started_s = time.process_time()
    path = write_report(run.path)
    assert time.process_time() - started_s < 3.0
    page = sections(parse(path))["training"]
    assert page.panel("In numbers").facts()["optimizer steps"] == "15,000"
    assert max(p.attributes["d"].count("L") for p in page.all("path", "line")) == 119
    assert path.stat().st_size < 300_000


def test_a_step_that_stands_twice_counts_once_at_its_last_place(run: RunFolder) -> None:
    again = step_record("pretrain", 3).model_copy(update={"useful_tokens": 150})
    with run.metrics.open("a", encoding="utf-8") as handle:
        handle.write(dump_checked_line(again.model_dump(mode="json")) + "\n")
    report = parse(write_report(run.path))
    training = sections(report)["training"]
    assert training.panel("In numbers").facts()["optimizer steps"] == "180"
    assert training.panel("Faults and restarts").facts()["steps done again"] == "10"
    assert "of its lines 1 twice in it" in report.text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_page(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_report(run.path).read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(run.path)
    assert run.report.read_bytes() == before and not list(run.path.glob(".report*"))


def test_the_command_writes_the_page_and_says_where(run: RunFolder) -> None:
    app = typer.Typer()
    app.command()(report)
    result = CliRunner().invoke(app, [str(run), "--json"], catch_exceptions=False)
    assert json.loads(result.output) == {
        "report": str(run.report), "size_bytes": run.report.stat().st_size,
    }  # fmt: skip


def test_scores_come_in_the_order_they_were_measured(run: RunFolder) -> None:
    assert list(sections(parse(write_report(run.path)))["evaluation"].table()) == list(BITS)
