"""The sentence at the top and the figures below it, for every state that a run can be in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persianmind.report.page import write_report
from persianmind.run.folder import RunFolder
from persianmind.run.log import add_evaluation, update_results
from tests.report.built_run import build_run, score
from tests.report.parsed import Node, parse, sections


def verdict(run: RunFolder) -> Node:
    return sections(parse(write_report(run.path)))["verdict"]


def sentence(run: RunFolder) -> str:
    return verdict(run).all("p", "sentence")[0].text


def test_a_finished_run_says_what_it_did_in_one_sentence(tmp_path: Path) -> None:
    text = sentence(build_run(tmp_path / "run"))
    assert text.startswith(
        "After 180 steps on 1,474,560 tokens, Persian went from 1.912 to 1.071 bits per byte (44.0% fewer, "
        "beyond the 95% intervals) and English went from 0.987 to 1.003 bits per byte (1.6% more, within the "
        "95% intervals), for "
    )
    assert " Wh measured + " in text and text.count(". ") == 0
    assert "-" not in text and "better" not in text  # a sign beside a word says it twice, or not at all


def test_a_run_that_goes_on_says_how_far_it_is_and_when_it_was_seen(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", stages=2)
    update_results(run, total_steps=240)
    text = sentence(run)
    assert text.startswith("Not finished: step 180 of 240, last seen 2026-03-01 06:")
    assert "so far Persian went from 1.912 to 1.121" in text
    facts = verdict(run).facts()
    assert facts["state"] == "not finished, step 180 of 240"
    assert facts["started"] == "2026-03-01 06:00 UTC" and "ended" not in facts
    assert facts["last seen"].startswith("2026-03-01") and facts["wall time"].endswith("pauses included")


def test_the_bases_own_score_is_no_result(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", stages=1)
    page = verdict(run)
    assert "no stage is scored yet" in sentence(run) and "1.912" not in sentence(run)
    assert [card.all("div", "big")[0].text for card in page.all("div", "card")][:2] == ["–", "–"]


def test_the_best_stage_is_named_where_a_later_one_lost_it(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    add_evaluation(run, [score("instruct", "fa", 1.5)])
    assert "its best 1.121 after pretrain" in sentence(run)
    assert "its best" not in sentence(build_run(tmp_path / "other"))


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (1.0, "unchanged"),
        (1.004, "unchanged"),
        (1.02, "2.0% more, within the 95% intervals"),
        (1.5, "50.0% more, beyond the 95% intervals"),
        (0.5, "50.0% fewer, beyond the 95% intervals"),
    ],
)
def test_a_change_has_one_direction_and_says_how_sure_it_is(tmp_path: Path, bits: float, said: str) -> None:
    run = build_run(tmp_path / "run", languages=("fa",), stages=0)
    for stage, value in (("base", 1.0), ("pretrain", bits)):
        add_evaluation(run, [score(stage, "fa", value)])
    assert f"({said})" in sentence(run)


@pytest.mark.parametrize("interval", [{"ci_low": None}, {"ci_high": None}])
def test_without_an_interval_nothing_is_beyond_it(tmp_path: Path, interval: dict[str, Any]) -> None:
    run = build_run(tmp_path / "run", languages=("fa",), stages=1)
    add_evaluation(run, [score("pretrain", "fa", 0.5).model_copy(update=interval)])
    assert "within the 95% intervals" in sentence(run)


def test_a_finished_run_without_scores_and_energy_still_has_a_sentence(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", stages=0, nodes=())
    update_results(run, finished=True)
    assert sentence(run) == "After 180 steps on 1,474,560 tokens, nothing was scored."
