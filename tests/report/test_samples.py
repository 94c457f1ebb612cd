from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.report.page import write_report
from persianmind.report.samples import repeated_text
from persianmind.run.log import update_results
from persianmind.run.records import SampleText
from tests.report.built_run import build_run
from tests.report.parsed import Node, parse, sections

LOOP = "پایتخت ایران تهران است. " * 5


def shown(tmp_path: Path, *texts: tuple[str, str, str]) -> Node:
    run = build_run(tmp_path / "run")
    update_results(run, samples=[SampleText(prompt=p, stage=stage, text=text) for p, stage, text in texts])
    return sections(parse(write_report(run.path)))["samples"]


def test_every_stage_stands_beside_the_base_under_its_prompt(tmp_path: Path) -> None:
    found = shown(
        tmp_path, ("سلام", "base", "Hello"), ("Hi", "base", "Hi"), ("سلام", "pretrain", LOOP),
        ("Hi", "pretrain", "سلام"),
    )  # fmt: skip
    prompts = [article.all("bdi", "prompt")[0].text for article in found.all("article")]
    assert prompts == ["سلام", "Hi"]
    for article in found.all("article"):
        [row] = article.all("div", "answers")
        assert [turn.all("h4")[0].text for turn in row.all("div", "turn")] == ["base", "pretrain"]
    assert "in the form that dialogues are trained in" in found.text


def test_an_answer_is_laid_out_by_its_own_script(tmp_path: Path) -> None:
    found = shown(tmp_path, ("سلام", "base", "Hello سلام"), ("سلام", "pretrain", "«سلام» Hello"))
    written = [(one.attributes["lang"], one.attributes["dir"]) for one in found.all("bdi", "sample")]
    assert written == [("fa", "rtl"), ("", "ltr"), ("fa", "rtl")]


def test_an_answer_that_repeats_itself_is_flagged(tmp_path: Path) -> None:
    found = shown(tmp_path, ("سلام", "base", "Hello there"), ("سلام", "pretrain", LOOP))
    base, pretrain = found.all("div", "turn")
    assert not base.all("p", "flag")
    assert pretrain.all("p", "flag")[0].text == "repeats itself: پایتخت ایران تهران است."


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        (LOOP, "پایتخت ایران تهران است."),
        ("so it is. " + "no, " * 6, "no,"),
        ("هههههههههههههه", "ه"),
        ("yes yes yes", ""),
        ("1,000,000,000", ""),
        ("10000000000", ""),
        ("----------------------", ""),
        ("The capital of France is Paris. The capital of Iran is Tehran.", ""),
    ],
)
def test_a_repetition_is_four_times_in_a_row_and_long_enough(text: str, repeated: str) -> None:
    assert repeated_text(text) == repeated
