"""The page of runs in other languages than Persian: names, direction, and which of them is the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persianmind.common.checksum import write_checked
from persianmind.report.page import write_report
from persianmind.run.folder import RunFolder
from persianmind.run.log import add_evaluation, update_results
from persianmind.run.records import SampleText
from tests.report.built_run import build_run, score
from tests.report.parsed import Node, parse, sections

HOSTILE = '"><script>alert(1)</script>'


def with_texts(run: RunFolder) -> Node:
    """The page of the run with one sample and one new piece."""
    update_results(run, samples=[SampleText(prompt="?", text="!", stage="pretrain")])
    piece = {"text": " აბ", "base_ids": [1, 2]}
    fertility = {code: {"before": 4.0, "after": 2.0} for code in ("ka", "en", "sr_Latin", "tlh")}
    run.vocab.mkdir(exist_ok=True)
    write_checked(run.vocab / "expansion.json", {"added": 1, "pieces": [piece], "fertility": fertility})
    return parse(write_report(run.path))


def titles(page: Node) -> list[str]:
    return [card.all("h3")[0].text for card in page.all("div", "card")]


def header(page: Node) -> list[str]:
    return [cell.text for cell in sections(page)["evaluation"].all("tr")[0].all("th")]


@pytest.mark.parametrize(
    ("code", "name", "tag", "direction"),
    [
        ("ka", "Georgian", "ka", "ltr"),
        ("ur", "Urdu", "ur", "rtl"),
        ("sr_Latin", "Serbian (Latin)", "sr", "ltr"),
        ("tlh", "tlh", "tlh", "auto"),  # no profile is known
    ],
)
def test_the_target_language_is_the_recipes(
    tmp_path: Path, code: str, name: str, tag: str, direction: str
) -> None:
    page = with_texts(build_run(tmp_path / "run", languages=(code, "en")))
    assert titles(page) == [f"{name}, held-out text", "English, held-out text", "Spent"]
    assert "44.0% fewer bits per byte: it predicts the text better" in page.all("div", "card")[0].text
    assert header(page) == [
        "after", f"{name}, bits/byte", "95% interval", "English, bits/byte", "95% interval",
    ]  # fmt: skip
    shown = sections(page)
    assert shown["evaluation"].all("div", "legend")[0].text == f"{name} English"
    for section, kind in (("samples", "native sample"), ("vocabulary", "native ")):
        text = shown[section].all("bdi")[-1]
        assert text.attributes == {"lang": tag, "dir": direction, "class": kind}
    assert shown["vocabulary"].all("ul", "chips")[0].attributes["dir"] == direction
    assert list(shown["vocabulary"].panel("Tokens per word").table()) == [
        "Georgian", "English", "Serbian (Latin)", "tlh",
    ]  # fmt: skip


def test_a_recipes_own_profile_names_its_language_and_never_writes_markup(tmp_path: Path) -> None:
    profile: dict[str, Any] = {"name": f"Klingon{HOSTILE}", "scripts": ["Hebrew"]}
    run = build_run(tmp_path / "run", languages=("tlh", "en"), profiles={"tlh": profile})
    page = with_texts(run)
    assert titles(page)[0] == f"Klingon{HOSTILE}, held-out text" and not page.all("script")
    assert sections(page)["samples"].all("bdi")[0].attributes["dir"] == "rtl"


def test_the_new_pieces_are_of_the_vocabularys_language(tmp_path: Path) -> None:
    sources = {
        "poems": {"uri": "package://hafez", "language": "ur"},
        "prose": {"uri": "package://python-topics", "language": "ka"},
    }
    vocab = {"sources": ["prose"]}
    shown = sections(with_texts(build_run(tmp_path / "run", sources=sources, vocab=vocab)))
    assert shown["vocabulary"].all("bdi")[0].attributes["lang"] == "ka"
    assert shown["samples"].all("bdi")[0].attributes["lang"] == "ur"


def test_further_languages_stand_in_the_table_and_the_chart(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", languages=("ka", "en"), stages=0)
    for stage, bits in (("base", 1.0), ("instruct", 1.5)):
        add_evaluation(run, [score(stage, code, bits) for code in ("hy", "ka", "en")])
    page = with_texts(run)
    assert titles(page)[:2] == ["Georgian, held-out text", "English, held-out text"]
    assert header(page)[1::2] == ["Georgian, bits/byte", "English, bits/byte", "Armenian, bits/byte"]
    chart = sections(page)["evaluation"].all("svg")[0]
    assert [line.attributes["class"] for line in chart.all("path", "line")] == [
        "line t-target", "line t-english", "line t-third",
    ]  # fmt: skip


def test_without_english_the_second_card_is_another_language(tmp_path: Path) -> None:
    page = with_texts(build_run(tmp_path / "run", languages=("ka", "hy")))
    assert titles(page) == ["Georgian, held-out text", "Armenian, held-out text", "Spent"]
    assert "1.6% more bits per byte; the intervals overlap" in page.all("div", "card")[1].text


def test_a_run_in_english_alone(tmp_path: Path) -> None:
    page = with_texts(build_run(tmp_path / "run", languages=("en",)))
    assert titles(page) == ["English, held-out text", "Spent"]
    assert header(page) == ["after", "English, bits/byte", "95% interval"]
    assert sections(page)["samples"].all("bdi")[0].attributes["dir"] == "ltr"


def test_a_target_that_got_worse_was_not_forgotten(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", languages=("ka",), stages=1)
    add_evaluation(run, [score("pretrain", "ka", 2.5)])
    assert parse(write_report(run.path)).all("p", "verdict")[0].text == "bits per byte: worse"


def test_without_a_recipe_the_scores_say_which_languages_there_are(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", languages=("ka", "en"))
    run.recipe.unlink()
    page = with_texts(run)
    assert titles(page)[0] == "Georgian, held-out text"
    assert sections(page)["samples"].all("bdi")[0].attributes["lang"] == "ka"


@pytest.mark.parametrize("code", [f"ka{HOSTILE}", "ka_Inherited", "\u202e", ""])
def test_whatever_the_scores_call_a_language_the_page_is_made(tmp_path: Path, code: str) -> None:
    run = build_run(tmp_path / "run", stages=0)
    run.recipe.unlink()
    add_evaluation(run, [score("base", code, 1.0), score("base", "en", 1.0)])
    page = with_texts(run)
    assert len(titles(page)) == 3 and not page.all("script")
    assert set(sections(page)["samples"].all("bdi")[0].attributes) == {"lang", "dir", "class"}
