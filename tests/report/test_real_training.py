"""Verdict and training on the page of a run that the launcher made, held against the run's files."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from persianmind.report.page import write_report
from tests.report.parsed import Node, parse, sections
from tests.report.test_real_run import energy_samples, lines, load

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def page(light_run: Path) -> Node:
    return parse(write_report(light_run))


def test_training_in_numbers_and_curves(light_run: Path, page: Node) -> None:
    steps = lines(light_run / "metrics.jsonl")
    assert len(steps) == 30
    training = sections(page)["training"]
    numbers = training.panel("In numbers").facts()
    tokens, useful, seconds = (sum(s[key] for s in steps) for key in ("tokens", "useful_tokens", "seconds"))
    assert numbers["optimizer steps"] == "30" and numbers["tokens"] == f"{tokens:,}"
    assert numbers["of them useful"] == f"{100 * useful / tokens:.1f} %"
    assert numbers["training time"] == f"{seconds:.1f} s"
    assert numbers["tokens per second, mean"] == f"{tokens / seconds:,.0f}"
    assert numbers["last loss"] == f"{steps[-1]['loss']:.3f} nats per token"
    highest = max(steps, key=lambda step: float(step["loss"]))
    assert numbers["highest loss of one step"] == f"{highest['loss']:.3f} step {highest['step']}"
    joules = sum(
        r["joules"] for s in energy_samples(light_run) if s["phase"] == "train" for r in s["readings"]
    )
    assert numbers["joules per thousand tokens"] == f"{1000 * joules / tokens:,.1f}"
    check_the_curve(training.panel("Loss, all sources mixed").all("svg")[0], [s["loss"] for s in steps])
    for title in ("Tokens per second", "Gradient norm", "Learning rate of the adapters"):
        assert training.panel(title).all("path", "line")[0].attributes["d"].count("L") == 29
    time = training.panel("Where the time went").all("span", "bar-name")
    assert {"pretrain", "instruct-1", "instruct-2", "evaluate:base", "export"} <= {bar.text for bar in time}
    kinds = training.panel("Memory of rank 0, by what holds it").all("span", "bar-name")
    assert {bar.text for bar in kinds} <= set(steps[-1]["memory"]) and len(kinds) > 4


def check_the_curve(drawing: Node, losses: list[float]) -> None:
    """Every step is drawn, at the height of its loss."""
    assert drawing.all("text", "mark-label")[0].text == "pretrain"
    path = drawing.all("path", "line")[0].attributes["d"]
    heights = [float(y) for y in re.findall(r" (-?[\d.]+)", path)]
    assert len(heights) == len(losses) == 30
    # Pixels count from the top: the highest loss is drawn at the smallest height, and all in proportion.
    scale = (max(heights) - min(heights)) / (max(losses) - min(losses))
    for height, loss in zip(heights, losses, strict=True):
        assert height == pytest.approx(min(heights) + scale * (max(losses) - loss), abs=0.11)


def test_loss_by_language_and_source_in_bits_per_byte_with_the_held_out_scores(
    light_run: Path, page: Node
) -> None:
    steps = lines(light_run / "metrics.jsonl")
    training = sections(page)["training"]
    by_language = training.panel("Loss by language")
    assert by_language.all("svg")[0].all("text", "axis-name")[0].text == "bits per byte"
    rows = by_language.table()
    for step in steps[:: len(steps) - 1]:
        shown = rows[str(step["step"])]
        for column, code in ((0, "fa"), (2, "en")):
            bits = step["bits_per_byte_by_language"].get(code)
            assert shown[column] == ("–" if bits is None else f"{bits:.4g}")
    base = [
        s["bits_per_byte"] for s in load(light_run / "results.json")["evaluation"] if s["stage"] == "base"
    ]
    assert [rows["0"][1], rows["0"][3]] == [f"{bits:.4g}" for bits in base]
    assert len(by_language.all("svg")[0].all("circle", "dot")) == 2 * 4  # both languages, base and 3 stages
    names = by_language.all("div", "legend")[0].text
    assert "Persian, training Persian, held out English, training English, held out" in names
    sources = {name for step in steps for name in step["bits_per_byte_by_source"]}
    legend = training.panel("Loss by source").all("div", "legend")[0].text
    assert len(sources) == 5 and all(name in legend for name in sources)


def test_new_tokens_what_was_forgotten_and_faults_are_those_of_the_files(light_run: Path, page: Node) -> None:
    results = load(light_run / "results.json")
    shown = sections(page)
    table = shown["suites"].panel("New tokens").table()
    assert list(table) == ["pretrain", "instruct-1", "instruct-2"]
    for one in results["new_tokens"]:
        counts = [f"{one[key]:,.0f}" for key in ("n", "seen", "dead", "median_seen")]
        percents = [f"{100 * one[key]:,.1f} %" for key in ("moved", "loss_ratio", "token_ratio")]
        assert table[one["stage"]] == counts + percents
    english = [s["bits_per_byte"] for s in results["evaluation"] if s["language"] == "en"]
    kept = shown["evaluation"].panel("Forgetting").facts()
    assert list(kept) == ["English"]
    assert kept["English"].startswith(f"{english[0]:.3f} → {english[-1]:.3f} bits per byte ")
    assert "No test was run." in shown["suites"].text and "Contamination" not in shown["suites"].headings
    faults = shown["training"].panel("Faults and restarts")
    assert faults.facts() == {
        "starts of the run": "1", "steps done again": "0", "steps that moved no weight": "0",
    }  # fmt: skip
    assert not faults.all("table") and not faults.all("li")


def test_time_is_what_the_meter_saw_of_each_phase(light_run: Path, page: Node) -> None:
    seconds: dict[str, float] = {}
    for sample in energy_samples(light_run):
        trains = sample["phase"] == "train"
        name = sample["stage"] if trains else ":".join(filter(None, (sample["phase"], sample["stage"])))
        seconds[name] = seconds.get(name, 0) + sample["seconds"]
    bars = sections(page)["training"].panel("Where the time went").all("div", "bar")
    shown = {bar.all("span", "bar-name")[0].text: bar.all("span", "bar-value")[0].text for bar in bars}
    assert shown == {name: f"{spent:.1f} s" for name, spent in seconds.items()}


def test_the_verdict_is_one_sentence_with_dates_hardware_and_versions(light_run: Path, page: Node) -> None:
    results, steps = load(light_run / "results.json"), lines(light_run / "metrics.jsonl")
    verdict = sections(page)["verdict"]
    sentence = verdict.all("p", "sentence")[0].text
    tokens = sum(step["tokens"] for step in steps)
    assert sentence.startswith(f"After 30 steps on {tokens:,} tokens, Persian went from ")
    assert sentence.endswith(".") and " Wh estimated (" in sentence and "%" in sentence
    facts = verdict.panel("When, where, of what").facts()
    assert facts["state"] == "finished" and facts["ended"] == facts["ended"][:16] + " UTC"
    assert facts["torch"] == version("torch") and facts["PersianMind"] == version("persianmind")
    assert facts["parameters"] == f"{results['model']['parameters']:,}"
    assert results["total_steps"] == 30 and facts["commit"] == (results["commit"] or "not from a checkout")
