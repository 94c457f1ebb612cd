"""Items that stand in a run's own shards, found by token runs; and scores with and without them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from persianmind.evaluate.contamination import item_overlaps, trained_files
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.items import ChoiceItem, TextItem
from persianmind.evaluate.session import Share, Wanted, run_suites
from persianmind.evaluate.suite import load_suite
from persianmind.recipe.loading import load_recipe, write_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.train.prepare import prepare
from tests.evaluate.small_model import small_model

SECRET = (
    "The quick brown fox jumps over the lazy dog while nine curious owls watch from a tall cedar tree nearby."
)
FRESH = "Seven grey ships sailed past the northern lighthouse before a storm had reached the harbour wall."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny recipe, prepared: its English source holds one sentence of ours within a document."""
    root = tmp_path_factory.mktemp("contamination")
    rows = [
        {"text": f"Document {i} says this. {SECRET if i == 7 else ''} And it ends here."} for i in range(40)
    ]
    (root / "english.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tasks = [{"instruction": "q", "output": "an answer"} for _ in range(4)]
    (root / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks), encoding="utf-8")
    recipe = load_recipe(
        "tiny",
        [f"sources.english.uri={root / 'english.jsonl'}", f"sources.translate.uri={root / 'tasks.jsonl'}",
         "heldout.sources=[poems]", "data.shuffle_block_sequences=null"],
    )  # fmt: skip
    folder = RunFolder(root / "run")
    folder.path.mkdir()
    write_run_recipe(folder.recipe, recipe)
    prepare(recipe, folder, lambda word, what: None)
    return folder.path


def test_a_sentence_of_the_data_is_found_and_another_is_not(run: Path) -> None:
    found = item_overlaps(run, [TextItem(SECRET), TextItem(FRESH), TextItem("short")], "en")
    assert found is not None and found[0] > 0.8 and found[1] == 0.0 and found[2] == 0.0


def test_an_item_is_all_of_its_texts(run: Path) -> None:
    item = ChoiceItem("What do the owls do?", ("watch", "sleep"), 0, SECRET)
    found = item_overlaps(run, [item, replace(item, passage=FRESH)], "en")
    assert found is not None and found[0] > 0.5 > found[1] == 0.0


def test_scores_with_and_without(run: Path, tmp_path: Path) -> None:
    rows = [
        {"passage": SECRET if i == 2 else FRESH, "question": f"q{i}", "candidates": ["a", "b"], "answer": 1}
        for i in range(4)
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tree = {
        "name": "own",
        "tasks": [{"name": "t", "layout": "choice", "file": "test.jsonl", "language": "en"}],
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    model = replace(small_model(), run=run)
    with generation_mode(model.causal_lm):
        found = run_suites(model, [load_suite(str(tmp_path / "own.yaml"))], Wanted(data=tmp_path), Share())
    letters = [one for one in found.results if one.metric == "accuracy_letter"]
    assert [one.n for one in letters] == [4, 3]
    assert letters[0].settings["contaminated_items"] == 1
    assert letters[1].settings["without"] == "contaminated items"


def test_what_was_trained_on_as_instructions_is_no_test(run: Path, tmp_path: Path) -> None:
    assert len(trained_files(run)) == 1
    tasks = (run.parent / "tasks.jsonl").read_bytes()
    (tmp_path / "test.jsonl").write_bytes(tasks)
    tree = {"name": "own", "tasks": [{"name": "t", "layout": "choice", "file": "test.jsonl"}]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    rows = [{"question": "q", "candidates": ["a", "b"], "answer": 1}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run.parent / "tasks.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "test.jsonl").write_text(text, encoding="utf-8")
    model = replace(small_model(), run=run)
    try:
        with generation_mode(model.causal_lm):
            found = run_suites(
                model, [load_suite(str(tmp_path / "own.yaml"))], Wanted(data=tmp_path), Share()
            )
    finally:
        (run.parent / "tasks.jsonl").write_bytes(tasks)
    assert not found.results and "was trained on as instructions" in found.not_run[0].reason
