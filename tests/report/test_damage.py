"""Every kind of damage to every file of a real run: the page names the file and keeps the other sections."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from persianmind.common.checksum import dump_checked_line, write_checked
from persianmind.report.page import write_report
from tests.report.parsed import Node, gaps, parse, sections
from tests.report.test_real_run import SECTIONS

pytestmark = pytest.mark.integration

# By file: the sections that cannot be shown without it.
LOST: dict[str, set[str]] = {
    "recipe.yaml": {"recipe"},
    "results.json": {"scores", "evaluation", "samples", "suites"},
    "metrics.jsonl": {"training"},
    "vocab/expansion.json": {"vocabulary"},
    "data/poems/manifest.json": set(),
    "checkpoints/step-28/manifest.json": set(),
    "energy/*.jsonl": {"cost"},
}
# The lines that these sections have, one per file: only that of the damaged file may go.
LINES = {
    "sources": ["english", "interpret", "messages", "poems", "translate"],
    "checkpoints": ["step-28", "step-30"],
}
LEFT_OUT = "so a step without a whole line is not shown"
LINE_FILES = ("metrics.jsonl", "energy/*.jsonl")


def remove(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def halve(path: Path) -> None:
    """The first half: of lines, up to the middle of one; of YAML, up to a key of the top level."""
    content = path.read_bytes()
    end = len(content) // 2
    if path.suffix == ".jsonl":
        end = content.index(b"\n", end) - 20
    if path.suffix == ".yaml":
        end = max(at.start() + 1 for at in re.finditer(rb"\n(?=\w)", content) if at.start() < end)
    path.write_bytes(content[:end])


def flip(path: Path) -> None:
    """Another bit in the middle: in a checked file any byte counts, in YAML only what breaks its form."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".yaml":
        content[len(content) // 2] = 0x07
    else:
        content[len(content) // 2] ^= 0x04
    path.write_bytes(bytes(content))


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Writes other content in the file's own form, its checksums sound."""
    if path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text(encoding="utf-8")))))
    elif path.suffix == ".json":
        write_checked(path, change(json.loads(path.read_text(encoding="utf-8"))))
    else:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(dump_checked_line(change(line)) + "\n" for line in lines), encoding="utf-8")


def mistype(path: Path) -> None:
    """Every field holds a value of a kind that it never has."""
    kept = ("kind", "checksum", "crc", "added")  # `added`: one sound field is enough for a section
    rewrite(path, lambda tree: {k: v if k in kept else {"a": [1, "x"]} for k, v in tree.items()})


DAMAGE: dict[str, Callable[[Path], None]] = {
    "removed": remove,
    "folder": replace_by_folder,
    "empty": lambda path: path.write_bytes(b""),
    "halved": halve,
    "flipped": flip,
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00\x01" * 40),
    "list": lambda path: path.write_bytes(b"[1, 2, 3]\n"),
    "text": lambda path: path.write_bytes(b'"only text"\n'),
    "deep": lambda path: path.write_bytes(b"[" * 5_000),
    "mistyped": mistype,
}
# What such a file still gives: all but a line or two, or what was before the cut.
PARTLY = {(name, kind) for name in LINE_FILES for kind in ("halved", "flipped")}
PARTLY |= {("recipe.yaml", "halved"), ("recipe.yaml", "mistyped"), ("vocab/expansion.json", "mistyped")}


def damaged(run: Path, name: str, kind: str) -> tuple[str, Node]:
    """The file that was damaged, and the page after it."""
    [path] = run.glob(name)
    DAMAGE[kind](path)
    return path.relative_to(run).as_posix(), parse(write_report(run))


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", LOST)
def test_the_file_is_named_and_the_other_sections_remain(real_run: Path, name: str, kind: str) -> None:
    file, page = damaged(real_run, name, kind)
    lost = set() if (name, kind) in PARTLY else LOST[name]
    assert list(sections(page)) == [section for section in SECTIONS if section not in lost]
    named = gaps(page)
    if name.startswith("energy") and (name, kind) in PARTLY:
        node = Path(file).stem
        remarks = sections(page)["cost"].panel("Remarks").text
        assert named == [] and f"energy/{node}.jsonl: 1 damaged line(s)" in remarks
    elif (name, kind) == ("vocab/expansion.json", "mistyped"):
        assert sections(page)["vocabulary"].panel("Sizes").facts()["new pieces"] == "400"
    elif name.startswith("energy") and kind == "folder":
        assert len(named) == 1 and file in named[0]
    elif name.startswith("energy") and kind == "removed":
        assert [gap.partition(": ")[0] for gap in named] == ["energy/*.jsonl"]
    else:
        assert named and all(gap.startswith(f"{file}: ") for gap in named)
    assert shown_lines(page) == {
        section: [line for line in lines if line not in file.split("/")] for section, lines in LINES.items()
    }


def shown_lines(page: Node) -> dict[str, list[str]]:
    """The first word of each line of the sections that have one per file."""
    return {name: [line.split()[0] for line in sections(page)[name].table()] for name in LINES}


@pytest.mark.parametrize("kind", ["removed", "binary", "mistyped"])
def test_a_recipe_that_cannot_be_used_is_said_beside_the_energy(real_run: Path, kind: str) -> None:
    _, page = damaged(real_run, "recipe.yaml", kind)
    energy = sections(page)["cost"]
    assert "recipe.yaml" in energy.panel("Remarks").text


def test_a_torn_line_costs_one_step(real_run: Path) -> None:
    with (real_run / "metrics.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"stage": "instruct-2", "step": 31, "lo')
    page = parse(write_report(real_run))
    assert sections(page)["training"].panel("In numbers").facts()["optimizer steps"] == "30"
    assert gaps(page) == [f"metrics.jsonl: of its lines 1 damaged, {LEFT_OUT}"]


@pytest.mark.parametrize("field", ["loss", "stage", "tokens", "learning_rate", "seconds"])
def test_a_line_with_a_wrong_field_costs_that_step_alone(real_run: Path, field: str) -> None:
    rewrite(real_run / "metrics.jsonl", lambda line: {**line, field: ["x"]} if line["step"] == 5 else line)
    page = parse(write_report(real_run))
    assert sections(page)["training"].panel("In numbers").facts()["optimizer steps"] == "29"
    assert gaps(page) == [f"metrics.jsonl: of its lines 1 damaged, 1 missing, {LEFT_OUT}"]


def test_steps_done_again_that_were_cut_to_nothing_are_said(real_run: Path) -> None:
    assert gaps(parse(write_report(real_run))) == []  # the control: no run has to have such a file
    (real_run / "metrics.discarded.jsonl").write_text("")
    (gap,) = gaps(parse(write_report(real_run)))
    assert gap.startswith("metrics.discarded.jsonl: no step in it")


def test_a_ledger_line_with_a_wrong_field_is_left_out_and_said(real_run: Path) -> None:
    [path] = (real_run / "energy").glob("*.jsonl")
    rewrite(path, lambda line: {**line, "seconds": "x"} if line.get("stage") == "pretrain" else line)
    energy = sections(parse(write_report(real_run)))["cost"]
    assert "unknown kind" in energy.panel("Remarks").text
    names = [bar.text for bar in energy.panel("By stage").all("span", "bar-name")]
    assert "instruct-1" in names and "pretrain" not in names


@pytest.mark.parametrize(
    ("field", "value", "place", "lost"),
    [
        ("evaluation", {"a": 1}, "evaluation", {"evaluation"}),
        ("samples", 7, "samples", {"samples"}),
        ("model", {"parameters": "many"}, "model", set()),
        ("versions", ["torch"], "versions", set()),
        ("finished", "perhaps", "finished", set()),
        ("energy", 3, "energy", set()),
        ("export", {"tolerance": 1}, "export", set()),
    ],
)
def test_a_wrong_field_of_the_results_costs_that_field_alone(
    real_run: Path, field: str, value: object, place: str, lost: set[str]
) -> None:
    rewrite(real_run / "results.json", lambda tree: {**tree, field: value})
    page = parse(write_report(real_run))
    assert list(sections(page)) == [section for section in SECTIONS if section not in lost]
    assert set(gaps(page)) == {f"results.json: {place} is not usable, so it is not shown"}


def test_wrong_items_of_the_results_cost_these_items_alone(real_run: Path) -> None:
    def spoil(tree: dict[str, Any]) -> dict[str, Any]:
        tree["evaluation"][2] |= {"bits_per_byte": "low"}  # pretrain, fa
        tree["versions"] |= {"torch": 2}
        tree["samples"].append({"prompt": "p"})
        return tree

    rewrite(real_run / "results.json", spoil)
    page = parse(write_report(real_run))
    assert gaps(page) == [
        f"results.json: {place} is not usable, so it is not shown"
        for place in ("evaluation.2", "versions.torch", "samples.5")
    ]
    shown = sections(page)
    assert shown["evaluation"].table()["pretrain"][:2] == ["–", "–"]
    assert shown["evaluation"].table()["instruct-1"][0] != "–" and len(shown["samples"].all("article")) == 1
    assert "torch" not in shown["environment"].facts() and "peft" in shown["environment"].facts()


def test_results_with_a_wrong_checksum_are_not_shown_at_all(real_run: Path) -> None:
    path = real_run / "results.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"finished": true', '"finished": false'))
    page = parse(write_report(real_run))
    assert gaps(page) == ["results.json: damaged, so evaluation, samples and versions are not shown"]
    assert page.all("div", "card")[0].all("p", "verdict")[0].text == "not measured yet"


def test_whole_folders_may_be_missing(real_run: Path) -> None:
    for name in ("vocab", "data", "checkpoints", "energy"):
        shutil.rmtree(real_run / name)
    page = parse(write_report(real_run))
    assert list(sections(page)) == [
        "verdict", "scores", "evaluation", "suites", "samples", "training", "use", "commands", "checkpoints",
        "recipe", "environment",
    ]  # fmt: skip
    assert [gap.partition(":")[0] for gap in gaps(page)] == [
        "vocab/expansion.json", "data/*/manifest.json", "energy/*.jsonl",
    ]  # fmt: skip
