"""The page of a run that the launcher made; every expected number is computed here, from the run's files."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from persianmind.common.template import clean
from persianmind.report.page import write_report
from tests.report.parsed import Node, gaps, parse, sections
from tests.support.launch import Launched

pytestmark = pytest.mark.integration

SECTIONS = [
    "verdict", "scores", "evaluation", "suites", "samples", "training", "cost", "data", "sources",
    "vocabulary", "use", "commands", "checkpoints", "recipe", "environment",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(light_run: Path) -> Node:
    return parse(write_report(light_run))


def load(path: Path) -> Any:
    """A JSON file, as any other program reads it."""
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def watt_hours(joules: float) -> str:
    return "<0.001 Wh" if 0 < joules < 3.6 else f"{joules / 3600:.3g} Wh"


def roundings(joules: float) -> set[str]:
    """Readings are whole millijoules, so a sum often lies half-way between two figures of three digits: the
    page divides it into kWh first, and may print either."""
    return {watt_hours(joules * (1 - 1e-9)), watt_hours(joules * (1 + 1e-9))}


def energy_samples(run: Path) -> list[dict[str, Any]]:
    [path] = (run / "energy").glob("*.jsonl")
    return [line for line in lines(path) if line["kind"] == "sample"]


def test_every_section_is_there_and_nothing_is_missing(page: Node) -> None:
    assert list(sections(page)) == SECTIONS and gaps(page) == []
    assert page.all("h1")[0].text == "tiny" and page.all("span", "state")[0].text == "finished"
    assert page.all("p", "sub")[0].text == "finished random://llama → pretrain, instruct-1, instruct-2"
    chapters = ("verdict", "scores", "samples", "training", "cost", "data", "use")
    links = [link.attributes["href"] for link in page.all("a")]
    assert links == ["#verdict", *(f"#{chapter}" for chapter in chapters)]  # the first skips the menu


def test_the_finished_run_left_the_same_page(tiny_run: Launched, page: Node) -> None:
    """The run's own report.html, but for the time and the folder."""
    own = parse(tiny_run.run / "report.html")
    assert own.skeleton == page.skeleton
    assert own.all("div", "hero")[0].text == page.all("div", "hero")[0].text


def test_scores_of_every_stage(light_run: Path, page: Node) -> None:
    scores = load(light_run / "results.json")["evaluation"]
    by_stage = {s["stage"]: {o["language"]: o for o in scores if o["stage"] == s["stage"]} for s in scores}
    assert list(by_stage) == ["base", "pretrain", "instruct-1", "instruct-2"]
    shown = sections(page)["evaluation"].table()
    assert list(shown) == list(by_stage)
    base = by_stage["base"]
    for stage, found in by_stage.items():
        expected = []
        for code in ("fa", "en"):
            bits, before = found[code]["bits_per_byte"], base[code]["bits_per_byte"]
            change = "" if stage == "base" else f" {100 * (bits - before) / before:+.1f}%".replace("-", "−")
            low, high, n = (found[code][key] for key in ("ci_low", "ci_high", "n_documents"))
            expected += [f"{bits:.3f}{change}", f"{low:.3f} to {high:.3f} {n:,} documents"]
        assert shown[stage] == expected
    for card, code in zip(page.all("div", "card"), ("fa", "en"), strict=False):
        first, last = (by_stage[stage][code]["bits_per_byte"] for stage in ("base", "instruct-2"))
        assert f"{first:.3f} → {last:.3f} bits per byte" in card.text
        percent = 100 * (last - first) / first
        assert card.all("div", "big")[0].text == f"{abs(percent):.1f}% {'fewer' if percent < 0 else 'more'}"
    curves = sections(page)["evaluation"].all("svg")[0].all("path", "line")
    assert [curve.attributes["d"].count("L") for curve in curves] == [3, 3]


def test_samples_are_whole(light_run: Path, page: Node) -> None:
    samples = load(light_run / "results.json")["samples"]
    assert len({one["prompt"] for one in samples}) == 1
    turns = sections(page)["samples"].all("div", "turn")
    stages = ["base", "pretrain", "instruct-1", "instruct-2", "export"]
    assert [turn.all("h4")[0].text for turn in turns] == stages
    texts = [samples[0]["prompt"], *(one["text"] for one in samples)]
    # A model of random weights writes control characters too, which no page may hold.
    found = [text.raw for text in sections(page)["samples"].all("bdi", "native")]
    assert found == [clean(text) for text in texts]
    assert len(samples) == len(stages)


def test_the_energy_account_adds_up(light_run: Path, page: Node) -> None:
    samples = energy_samples(light_run)
    readings = [reading for sample in samples for reading in sample["readings"]]
    total = sum(reading["joules"] for reading in readings)
    measured = sum(reading["joules"] for reading in readings if reading["kind"] == "measured")
    energy = sections(page)["cost"]
    account = energy.panel("The account").facts()
    used = {f"{text} estimated (" for text in roundings(total - measured)}
    assert any(text in account["energy"] for text in used)
    assert "from the cleanest grid (Lesotho) to the dirtiest (Turkmenistan)" in account["CO₂eq"]
    assert account["PUE"] == "1" and account["grid intensity"].startswith("not stated; for one figure set")
    grids = energy.panel("On other grids").table()
    assert [cells[0] for cells in grids.values()] == ["20", "1,306"]
    assert account["done again after a crash"] == "0 Wh" and account["starts of the run"] == "1"
    by_part: dict[str, float] = {}
    for reading in readings:
        by_part[reading["component"]] = by_part.get(reading["component"], 0) + reading["joules"]
    bars = energy.panel("By part").all("div", "bar")
    shown = {bar.all("span", "bar-name")[0].text: bar.all("span", "bar-value")[0].text for bar in bars}
    assert shown.keys() == by_part.keys()
    assert {name: text for name, text in shown.items() if text not in roundings(by_part[name])} == {}
    sources = energy.panel("Where the numbers come from").table()
    assert {name: set(cells[0].split("; ")) for name, cells in sources.items()} == {
        name: {r["source"] for r in readings if r["component"] == name} for name in by_part
    }
    assert not any("published" in heading for heading in energy.headings)  # none is of its scale
    assert len(energy.panel("Power over time").all("svg")) == 2


def test_every_phase_of_the_run_has_its_energy(light_run: Path, page: Node) -> None:
    joules: dict[str, float] = {}
    for sample in energy_samples(light_run):
        trains = sample["phase"] == "train"
        name = sample["stage"] if trains else ":".join(filter(None, (sample["phase"], sample["stage"])))
        joules[name] = joules.get(name, 0) + sum(reading["joules"] for reading in sample["readings"])
    bars = sections(page)["cost"].panel("By stage").all("div", "bar")
    shown = {bar.all("span", "bar-name")[0].text: bar.all("span", "bar-value")[0].text for bar in bars}
    assert shown.keys() == joules.keys()
    assert {name: text for name, text in shown.items() if text not in roundings(joules[name])} == {}
    assert {"pretrain", "instruct-1", "instruct-2", "evaluate:base", "export"} <= shown.keys()


def test_the_vocabulary(light_run: Path, page: Node) -> None:
    expansion = load(light_run / "vocab/expansion.json")
    vocabulary = sections(page)["vocabulary"]
    assert vocabulary.panel("Sizes").facts() == {
        "tokenizer family": "byte-bpe",
        "base vocabulary": f"{expansion['base_vocab']:,}",
        "new pieces": f"{expansion['added']:,}",
    }
    fertility = vocabulary.panel("Tokens per word").table()
    for name, code in (("Persian", "fa"), ("English", "en")):
        measured = expansion["fertility"][code]
        assert fertility[name][:2] == [f"{measured['before']:,.2f}", f"{measured['after']:,.2f}"]
    chips = vocabulary.panel("Some of the 400 new pieces").all("li")
    known = {(p["text"].strip(), str(len(p["base_ids"]))) for p in expansion["pieces"]}
    assert {(c.all("bdi")[0].text, c.all("small")[0].text) for c in chips} <= known and len(chips) > 40


def test_every_source_of_the_data(light_run: Path, page: Node) -> None:
    data = sections(page)["sources"]
    shown = data.table()
    folders = sorted(path.parent for path in (light_run / "data").glob("*/manifest.json"))
    assert len(folders) == 5
    assert [first.split()[0] for first in shown] == [folder.name for folder in folders]
    reasons = [item.text for item in data.panel("Set aside, by reason").all("li")]
    expected_reasons = []
    for (first, cells), folder in zip(shown.items(), folders, strict=True):
        manifest = load(folder / "manifest.json")
        origin = ", ".join(manifest[key] for key in ("language", "kind", "licence"))
        assert first == f"{folder.name} {origin}"
        aside = dict(manifest["rejected"]) | {n: d["count"] for n, d in manifest["dropped"].items()}
        keys = ("documents", "documents_held_out", "tokens", "sequences")
        assert cells == [
            *(f"{manifest[key]:,}" for key in keys), f"{100 * manifest['fill']:,.2f} %",
            f"{manifest['documents_cut']:,}", f"{manifest['tokens_lost']:,}", f"{sum(aside.values()):,}",
        ]  # fmt: skip
        expected_reasons += [f"{folder.name}: {n:,} × {why.replace('_', ' ')}" for why, n in aside.items()]
    assert expected_reasons and reasons == expected_reasons


def test_the_checkpoints_on_disk(tiny_run: Launched, page: Node) -> None:
    folders = sorted((tiny_run.run / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))
    shown = sections(page)["checkpoints"].table()
    assert list(shown) == [folder.name for folder in folders] and len(folders) == 2
    for folder in folders:
        stage, step, ranks, size, saved = shown[folder.name]
        stored = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
        assert (stage, step, ranks) == ("instruct-2", folder.name[5:], "2")
        assert size == f"{stored / 1e6:.1f} MB" and saved.startswith("20")


def test_the_recipe_as_it_was_written(light_run: Path, page: Node) -> None:
    recipe = yaml.safe_load((light_run / "recipe.yaml").read_text(encoding="utf-8"))
    model = load(light_run / "results.json")["model"]
    section = sections(page)["recipe"]
    short = section.panel("In short").facts()
    assert short == {
        "base model": "random://llama", "parameters": f"{model['parameters']:,}",
        "of them trained": f"{model['trained_parameters']:,}",
        "LoRA rank, alpha": f"{recipe['adapter']['rank']}, {recipe['adapter']['alpha']}",
        "adapters in": "all layers", "trained embeddings": recipe["vocab"]["train_embeddings"],
        "new embeddings initialised by": recipe["vocab"]["initialise"],
        "sequences per step": "4", "sequence length": "256", "learning rate": "0.005",
        "schedule": recipe["train"]["schedule"], "precision": "fp32, base none", "seed": "7",
    }  # fmt: skip
    assert section.panel("Stages").facts() == {
        "pretrain": "16,384 tokens: poems 0.6, messages 0.2, english 0.2",
        "instruct-1": "7,168 tokens: translate 0.8, english 0.2",
        "instruct-2": "7,168 tokens: interpret 0.8, english 0.2",
    }


def test_where_it_ran(page: Node) -> None:
    shown = sections(page)["environment"].facts()
    for package in ("torch", "deepspeed", "transformers", "persianmind"):
        assert shown[package] == version(package)
    assert {"system", "CPU threads"} <= shown.keys()


def test_commands_name_this_folder(light_run: Path, page: Node) -> None:
    commands = [pre.raw for pre in sections(page)["commands"].all("pre")]
    assert commands == [
        f"persianmind train {light_run}/recipe.yaml --output {light_run}",
        f"persianmind chat {light_run}",
        f"persianmind verify {light_run}",
        f"persianmind energy report {light_run} --json",
        f"persianmind report {light_run}",
        f"AutoModelForCausalLM.from_pretrained('{light_run}/export')",
    ]
