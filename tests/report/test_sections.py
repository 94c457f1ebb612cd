"""What sections say of states that the tiny run has not: skipped steps, MFU, scores within stages, forgotten
languages, contaminated tests, other runs beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from persianmind.common.checksum import dump_checked_line
from persianmind.evaluate.published import SOURCE, published_beside
from persianmind.recipe.loading import load_recipe
from persianmind.report.inputs import recipe
from persianmind.report.page import write_report
from persianmind.report.read import RunFiles
from persianmind.run.evaluation_records import NewTokens, SuiteResult
from persianmind.run.folder import RunFolder
from persianmind.run.log import (
    add_evaluation,
    add_evaluation_within,
    add_new_tokens,
    add_suite_results,
    read_results,
    update_results,
)
from persianmind.run.records import MemoryBytes, SkipReason
from persianmind.train.summary import summary_lines
from tests.report.built_run import build_run, score, step_record, write_lines
from tests.report.parsed import Node, parse, sections

MEMORY = MemoryBytes(
    weights=2**30, embeddings=2**29, adapters=0, optimizer=2**28, activations=2**31, loss=2**27, other=2**26
)


def shown(run: RunFolder) -> dict[str, Node]:
    return sections(parse(write_report(run.path)))


def trained(run: RunFolder, **changes: Any) -> dict[str, Node]:
    """The page of ten steps, each with these values."""
    write_lines(run.metrics, [step_record("pretrain", n).model_copy(update=changes) for n in range(1, 11)])
    return shown(run)


def test_memory_and_mfu_have_their_curves_and_parts(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    values = {
        "mfu": 0.31,
        "peak_memory_bytes": 2**30,
        "peak_device_memory_bytes": 3 * 2**30,
        "memory": MEMORY,
    }
    training = trained(run, **values)["training"]
    assert training.panel("Model FLOPs utilisation").table()["1"] == ["31"]
    assert training.panel("Memory, highest so far").table()["1"] == ["3"]  # the GPU's, where there is one
    bars = training.panel("Memory of rank 0, by what holds it").all("div", "bar")
    assert bars[0].text == "weights 1.00 GiB" and len(bars) == 6
    assert "Model FLOPs utilisation" not in trained(run, mfu=None)["training"].headings


def test_a_step_that_moved_nothing_is_named_with_its_reason(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    steps = [step_record("pretrain", n) for n in range(1, 6)]
    steps[2] = steps[2].model_copy(update={"skipped": True, "skip_reason": SkipReason.SPIKE})
    write_lines(run.metrics, steps)
    faults = shown(run)["training"].panel("Faults and restarts")
    assert faults.facts()["steps that moved no weight"] == "1"
    assert [item.text for item in faults.all("li")] == ["step 3: skipped, spike"]


def test_scores_within_a_stage_are_points_of_the_curve(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    add_evaluation_within(run, [score("pretrain", "fa", 1.5).model_copy(update={"step": 60})])
    rows = shown(run)["training"].panel("Loss by language").table()
    assert {step: cells[0] for step, cells in rows.items()} == {
        "0": "1.912", "60": "1.5", "120": "1.121", "180": "1.071",
    }  # fmt: skip


def test_what_was_forgotten_is_said_with_both_scores(tmp_path: Path) -> None:
    facts = shown(build_run(tmp_path / "run"))["scores"].panel("Forgetting").facts()
    assert facts == {
        "English": "0.987 → 1.003 bits per byte 1.6% more bits per byte; the intervals overlap, so it may be "
        "chance"
    }
    alone = build_run(tmp_path / "alone", languages=("fa",))
    assert "Forgetting" not in shown(alone)["scores"].headings


def test_the_loss_per_token_of_different_vocabularies_stands_nowhere(tmp_path: Path) -> None:
    """12 per token of the base and 1,117 of the trained model read as a disaster; the text got likelier."""
    run = build_run(tmp_path / "run", stages=0)
    for stage, bits, perplexity, tokenizer in (("base", 1.9, 12.3, "a"), ("pretrain", 1.1, 1117.4, "b")):
        found = score(stage, "fa", bits).model_copy(update={"perplexity": perplexity, "tokenizer": tokenizer})
        add_evaluation(run, [found])
    page = parse(write_report(run.path))
    told = [page.text, *summary_lines(read_results(run))]
    assert not any("1117" in text or "1,117" in text or "erplexity" in text for text in told)
    assert "1.100" in page.text


def suite(contaminated: int | None) -> SuiteResult:
    settings = {} if contaminated is None else {"contaminated_items": contaminated}
    return SuiteResult(
        suite="everyday", task="fa", metric="accuracy", value=0.5, n=48, settings=settings, stage="instruct"
    )


def test_contamination_is_said_found_or_not_or_not_looked_for(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    for contaminated, said in (
        (3, "everyday/fa: 3 of 48 items share long passages with the text that was trained on"),
        (0, "Tests compared: 1. No item shares a long passage with the text trained on."),
        (None, "No test was compared with the text that was trained on."),
    ):
        update_results(run, results=[])
        add_suite_results(run, [suite(contaminated)], [], [])
        assert said in shown(run)["scores"].panel("Contamination").text


def test_tests_stand_beside_what_the_paper_published_metric_by_metric(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    measured = [
        SuiteResult(suite=suite, task=task, metric=metric, value=value, ci_low=value - 0.1, n=90,
                    ci_high=value + 0.1, chance=chance, settings={}, stage=stage)
        for stage, add in (("base", 0.0), ("instruct", 0.25))
        for suite, task, metric, value, chance in (
            ("belebele", "fa", "accuracy_letter", 0.25 + add, 0.25),
            ("flores", "fa-en", "chrf", 11 + add, None),
            ("everyday", "fa", "accuracy_letter", 0.3 + add, 0.25),
        )
    ]  # fmt: skip
    add_suite_results(run, measured, [], published_beside(measured))
    scores = shown(run)["scores"]
    assert [cell.text for cell in sections_header(scores)] == [
        "test", "metric", "chance", "base", "instruct", "published",
    ]  # fmt: skip
    table = section_table(scores)
    paper = "0.739 PersianMind-v1.0 (bf16); 0.737: PersianMind-v1.0 (int8); 0.702: PersianMind-v1.0 (nf4)"
    assert table["belebele/fa 90 items"] == [
        "accuracy_letter", "0.250", "0.250 0.15 to 0.35", "0.500 0.4 to 0.6", paper,
    ]  # fmt: skip
    # chrF is not COMET: the paper's figure has a line of its own.
    assert table["flores/fa-en 90 items"][-1] == "–"
    metric, *empty, comet = table["flores/fa-en not measured here"]
    assert metric == "comet" and set(empty) == {"–"} and comet.startswith("83.61 PersianMind-v1.0 (bf16)")
    assert table["everyday/fa 90 items"][-1] == "–" and "flores/en-fa not measured here" not in table
    assert f"Published: {SOURCE}." in scores.text


def test_without_published_figures_there_is_no_column_for_them(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    add_suite_results(run, [suite(0)], [], [])
    scores = shown(run)["scores"]
    assert sections_header(scores)[-1].text == "instruct" and "published" not in scores.text


def section_table(scores: Node) -> dict[str, list[str]]:
    return next(one for one in scores.all("section") if one.attributes["id"] == "suites").table()


def sections_header(scores: Node) -> list[Node]:
    found = next(one for one in scores.all("section") if one.attributes["id"] == "suites")
    return found.all("thead")[0].all("th")


def test_new_tokens_that_nothing_moved_are_counted(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    found = NewTokens(stage="pretrain", n=400, seen=390, dead=7, min_seen=10, median_seen=58, moved=0.27)
    add_new_tokens(run, found)
    table = shown(run)["scores"].panel("New tokens").table()
    assert table["pretrain"][:4] == ["400", "390", "7", "58"]


def finished(path: Path, kwh: float, at: float) -> RunFolder:
    """A run with an account, whose results were written at a time."""
    run = build_run(path)
    per_million = {"count": 7_000, "kwh": kwh / 0.007, "co2_g": None}
    update_results(run, energy={"kwh": kwh, "measured_ratio": 0.5, "per_million_tokens": per_million})
    os.utime(run.results, (at, at))
    return run


def test_earlier_runs_of_the_folder_stand_beside_the_cost(tmp_path: Path) -> None:
    finished(tmp_path / "first", 0.5, 1000)
    finished(tmp_path / "later", 0.7, 3000)
    damaged = finished(tmp_path / "damaged", 0.6, 1500)
    damaged.results.write_text("{}")
    os.utime(damaged.results, (1500, 1500))
    run = finished(tmp_path / "run", 0.4, 2000)
    table = shown(run)["cost"].panel("Earlier runs of this folder").table()
    assert table == {"first": ["500 Wh", "50 %", "1.912", "1.071", "7,000"]}
    assert "Earlier runs of this folder" not in shown(RunFolder(tmp_path / "first"))["cost"].headings


def test_a_stages_length_is_in_the_unit_that_it_was_given_in(tmp_path: Path) -> None:
    lengths: list[dict[str, Any]] = [{"tokens": 4096}, {"tokens": None, "steps": 30}, {"epochs": 2}]
    stages = [{"name": f"s{i}", "sources": {"a": 1.0}, **one} for i, one in enumerate(lengths)]
    found = recipe(RunFiles(RunFolder(tmp_path), recipe={"stages": stages, "adapter": {"layers": [1]}}))
    assert found is not None
    texts = [cell.text for _, cell in found.stages]
    assert texts == ["4,096 tokens: a 1.0", "30 steps: a 1.0", "2 epochs: a 1.0"]


def test_the_layers_that_have_adapters_are_among_the_facts(tmp_path: Path) -> None:
    valid = load_recipe("tiny", ["adapter.layers=[0, -1]"])
    found = recipe(RunFiles(RunFolder(tmp_path), valid.model_dump(mode="json"), valid))
    assert found is not None and dict(found.facts)["adapters in"].text == "layers 0, -1 (-1 is the last)"


def test_a_part_that_nobody_knows_is_a_remark_also_where_the_meter_said_nothing(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    assert "The meter noted no gap." in shown(run)["cost"].panel("Remarks").text
    path = run.ledger("box1")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    changed = [{**line, "unknown": ["cpu"]} if line["kind"] == "start" else line for line in lines]
    path.write_text("".join(dump_checked_line(line) + "\n" for line in changed), encoding="utf-8")
    page = shown(run)
    assert page["cost"].panel("Remarks").text.endswith("cpu: what it used is unknown, and in no figure here")
    spent = page["verdict"].all("div", "card")[-1]
    assert spent.headings == ["Spent, as far as it is known"] and "CPU unknown" in spent.text
