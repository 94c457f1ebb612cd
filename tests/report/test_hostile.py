"""Hostile text and numbers in every field of a real run's files: shown as text, never as markup."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persianmind.report.page import write_report
from tests.report.parsed import Node, gaps, parse, sections
from tests.report.test_damage import rewrite
from tests.report.test_real_run import SECTIONS

pytestmark = pytest.mark.integration

ATTACKS = {
    "element": "<script>alert(1)</script>",
    "attribute": '" onmouseover="alert(1)" x=\'',
    "quote": "' onload='alert(1)",
    "image": "<img src=x onerror=alert(1)>",
    "end of the section": "</dd></td></svg></section></main><form action=//evil>",
    "style": "</style><style>*{background:url(//evil)}",
    "comment": "<!--x",
    "entity": "&lt;b&gt;&#60;i&#62;",
    "template": "{{ 7 * 7 }}{% raw %}{# #}",
    "cdata": "]]><![CDATA[<b>",
}
HARMLESS = "·harmless·"
# Text that says what a field is, or that must stay what it is for the line to be read at all.
KEPT = {
    "kind", "phase", "component", "time", "dtype", "fingerprints", "shards", "files", "loss_hex",
    "skip_reason", "attempt", "checksum", "crc", "callbacks", "gate", "fingerprint",
}  # fmt: skip
NAMED_BY_DATA = {
    "versions",
    "fertility",
    "rejected",
    "dropped",
}  # mappings of which the keys are free text too


def plant(value: Any, text: str) -> Any:
    """The same tree with `text` behind every text, and behind the keys that data name."""
    if isinstance(value, dict):
        return {key: item if key in KEPT else _plant_field(key, item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [plant(item, text) for item in value]
    return value + text if isinstance(value, str) else value


def _plant_field(key: str, value: Any, text: str) -> Any:
    planted = plant(value, text)
    if key in NAMED_BY_DATA and isinstance(planted, dict):
        return {f"{name}{text}": item for name, item in planted.items()}
    return planted


def files(run: Path) -> list[Path]:
    """Every file that the page reads."""
    patterns = (
        "recipe.yaml", "results.json", "metrics.jsonl", "vocab/expansion.json", "data/*/manifest.json",
        "checkpoints/*/manifest.json", "energy/*.jsonl",
    )  # fmt: skip
    return [path for pattern in patterns for path in run.glob(pattern)]


def with_text(run: Path, text: str) -> Path:
    """The page of the run with `text` in every field; called again, the text replaces the one before."""
    for path in files(run):
        original = path.with_name(f"{path.name}.original")
        if not original.exists():
            original.write_bytes(path.read_bytes())
        path.write_bytes(original.read_bytes())
        rewrite(path, lambda tree: plant(tree, text))
    return write_report(run)


@pytest.mark.parametrize("kind", ATTACKS)
def test_planted_markup_changes_no_element_and_no_attribute(real_run: Path, kind: str) -> None:
    attack = ATTACKS[kind]
    word = HARMLESS.ljust(len(attack), ".")[: len(attack)]  # as long, because some names are cut
    harmless, hostile = parse(with_text(real_run, word)), parse(with_text(real_run, attack))
    assert shown_text(harmless).count(word) > 60 and list(sections(harmless)) == SECTIONS
    assert hostile.skeleton == harmless.skeleton
    # And it is on the page as text, letter by letter.
    assert shown_text(hostile).count(attack) == shown_text(harmless).count(word)


def shown_text(page: Node) -> str:
    """All text but the remarks, which quote the recipe's values in Python's way."""
    return page.raw.replace(sections(page)["energy"].panel("Remarks").raw, "")


def test_every_section_was_reached(real_run: Path) -> None:
    """The control of the test above: the planted text is in every section that shows files."""
    page = parse(with_text(real_run, HARMLESS))
    assert {name for name, node in sections(page).items() if HARMLESS[:5] in node.raw} == set(SECTIONS) - {
        "commands"
    }
    assert HARMLESS in page.all("h1")[0].raw and HARMLESS in page.all("title")[0].raw


def test_an_attack_that_is_not_escaped_would_be_seen(real_run: Path) -> None:
    """The control of the skeleton: one unescaped element makes it another."""
    path = write_report(real_run)
    before = parse(path).skeleton
    path.write_text(path.read_text(encoding="utf-8").replace("<h1>tiny", "<h1><b>tiny</b>"), encoding="utf-8")
    assert parse(path).skeleton != before


def test_control_and_bidirectional_characters_are_stripped(real_run: Path) -> None:
    unwanted = "".join(map(chr, [*range(1, 9), 11, 12, *range(14, 32), *range(127, 160)]))
    turning = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    path = with_text(real_run, f"a\u200cb{turning}c{unwanted}d")
    html = path.read_text(encoding="utf-8")
    assert not set(unwanted + turning) & set(html)
    assert parse(path).raw.count("a\u200cbcd") > 60


def test_hostile_names_of_folders_and_files(real_run: Path) -> None:
    evil = "<b onclick=x>&"
    run = real_run.rename(real_run.with_name(f"run {evil}\u202e"))
    (run / "data" / "poems").rename(run / "data" / evil)
    (run / "data" / "english" / "manifest.json").unlink()
    (run / "data" / "english").rename(run / "data" / f"{evil}2")
    (run / "checkpoints" / "step-28").rename(run / "checkpoints" / f"step-{evil}")
    [ledger] = (run / "energy").glob("*.jsonl")
    ledger.rename(run / "energy" / f"{evil}.jsonl")
    (run / "recipe.yaml").unlink()
    path = write_report(run)
    page = parse(path)
    assert not page.all("b") and "\u202e" not in path.read_text(encoding="utf-8")
    assert page.all("h1")[0].raw == f"run {evil}"
    assert f"step-{evil}" in sections(page)["checkpoints"].table()
    assert any(gap.startswith(f"data/{evil}2/manifest.json: not there") for gap in gaps(page))


def test_lone_surrogates_do_not_stop_the_page(real_run: Path) -> None:
    (real_run / "recipe.yaml").write_text('name: "a\\ud800b"\nbase: "c\\udc41"\n', encoding="utf-8")
    page = parse(write_report(real_run))
    assert page.all("h1")[0].text == "a?b"


def test_lists_and_mappings_in_place_of_values_are_not_written_out(real_run: Path) -> None:
    (real_run / "recipe.yaml").write_text(
        "name: &a [x, x]\nbase: {a: *a, b: *a}\nseed: &s [*s]\nstages: [{name: *a, tokens: *a, epochs: *s}]\n"
    )
    page = parse(write_report(real_run))
    assert page.all("h1")[0].text == "–" and sections(page)["recipe"].panel("In short").facts()["seed"] == "–"
    assert page.all("p", "sub")[0].text == "finished – → –"
    assert sections(page)["recipe"].panel("Stages").facts() == {"–": "– epochs:"}


def numbers(value: Any, change: Callable[[float], float], key: str = "") -> Any:
    """The same tree with every number changed but those that say which step or format it is."""
    if isinstance(value, dict):
        return {k: numbers(item, change, k) for k, item in value.items()}
    if isinstance(value, list):
        return [numbers(item, change, key) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return change(value) if is_number and key not in ("step", "format", "version") else value


NUMBERS: dict[str, Callable[[float], float]] = {
    "largest float": lambda value: 1e308 if isinstance(value, float) else value,
    "huge integer": lambda value: 10**400 if isinstance(value, int) else value,
    "huge integer everywhere": lambda value: 10**400,
    "smallest float": lambda value: 5e-324 if isinstance(value, float) else value,
    "zero": lambda value: 0,
    "negative": lambda value: -value,
    "alternating": lambda value: -1e300 if math.floor(value * 1e6) % 2 else 1e300,
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_no_number_stops_the_page_or_leaves_a_drawing(real_run: Path, kind: str) -> None:
    for path in files(real_run):
        rewrite(path, lambda tree: numbers(tree, NUMBERS[kind]))
    page = parse(write_report(real_run))
    assert {"commands", "recipe"} <= set(sections(page))
    assert_drawings_are_finite(page)


def assert_drawings_are_finite(page: Node) -> None:
    """Every coordinate is a plain number on or near its drawing."""
    for drawing in page.all("svg"):
        for node in drawing.walk():
            for name in {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "d"} & node.attributes.keys():
                values = re.split(r"[MLZ ]+", node.attributes[name].strip("MLZ"))
                assert all(-2000 < float(value) < 2000 for value in values), node
