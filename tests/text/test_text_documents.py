"""The held-out split: by document, across sources, and by text where the same text has another key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persianmind.recipe import Recipe
from persianmind.text import documents as documents_module
from persianmind.text.documents import (
    evaluated_fingerprints,
    held_out_texts,
    training_documents,
    training_texts,
)

POEMS = 400


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Poems, their interpretations as instruction rows under the same keys, and a site that copied some."""
    poems = [{"id": f"poem/{i}", "text": f"شعر شمارهٔ {i} از دیوان"} for i in range(POEMS)]
    asked = [
        {"id": f"poem/{i}", "instruction": "تفسیر کن.", "input": f"شعر {i}", "output": f"معنای {i}"}
        for i in range(POEMS)
    ]
    copied = [{"id": f"site/{i}", "text": f"شعر  شمارهٔ {i} از ديوان"} for i in range(POEMS)]  # other spelling
    sources: dict[str, Any] = {}
    for name, rows, kind in (("fa", poems, "text"), ("ask", asked, "instruction"), ("site", copied, "text")):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sources[name] = {"uri": str(tmp_path / f"{name}.jsonl"), "kind": kind}
    return Recipe.model_validate(
        {
            "name": "t",
            "base": "none",
            "seed": 3,
            "sources": sources,
            "heldout": {"ratio": 0.1, "sources": ["fa"]},
            "stages": [{"name": "a", "sources": {"fa": 1.0}, "epochs": 1}],
        }
    )


def test_split_is_by_document_and_covers_every_source(recipe: Recipe) -> None:
    held = {key for key, _ in held_out_texts(recipe, "fa")}
    assert 20 < len(held) < 60
    trained = {document.key for document in training_documents(recipe, "fa")}
    assert trained.isdisjoint(held) and len(trained | held) == POEMS
    assert {document.key for document in training_documents(recipe, "ask")} == trained


def test_same_text_under_another_key_is_not_trained_on(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {text for _, text in held_out_texts(recipe, "fa")}
    assert len(evaluated_fingerprints(recipe)) == len(held)
    assert held.isdisjoint(training_texts(recipe, ["fa", "ask", "site"]))
    monkeypatch.setattr(documents_module, "evaluated_fingerprints", lambda recipe: frozenset())
    assert not held.isdisjoint(training_texts(recipe, ["site"])), "the control: without the guard it leaks"


def test_split_does_not_depend_on_order_or_on_other_rows(recipe: Recipe) -> None:
    before = {key for key, _ in held_out_texts(recipe, "fa")}
    path = Path(str(recipe.sources["fa"].uri))
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True)[50:])))
    after = {key for key, _ in held_out_texts(recipe, "fa")}
    assert after <= before and len(after) > 0.7 * len(before)


def test_seed_moves_the_split(recipe: Recipe) -> None:
    other = recipe.model_copy(update={"seed": 4})
    assert set(held_out_texts(recipe, "fa")) != set(held_out_texts(other, "fa"))


def test_nothing_is_held_out_where_nothing_is_evaluated(recipe: Recipe) -> None:
    none = recipe.model_copy(update={"heldout": recipe.heldout.model_copy(update={"sources": []})})
    assert len(list(training_documents(none, "fa"))) == POEMS
    assert not list(held_out_texts(none, "fa"))


def test_held_out_characters_are_capped(recipe: Recipe) -> None:
    heldout = recipe.heldout.model_copy(update={"max_characters": 100})
    texts = [text for _, text in held_out_texts(recipe.model_copy(update={"heldout": heldout}), "fa")]
    assert 100 <= sum(map(len, texts)) < 130
    everything = [text for _, text in held_out_texts(recipe, "fa")]
    assert texts == everything[: len(texts)]
    # what is held out but not evaluated stays unused all the same
    capped = recipe.model_copy(update={"heldout": heldout})
    assert set(everything).isdisjoint(training_texts(capped, ["fa"]))


def test_instruction_rows_give_each_of_their_turns(recipe: Recipe) -> None:
    texts = list(training_texts(recipe, ["ask"]))
    document = next(iter(training_documents(recipe, "ask")))
    assert texts[:2] == list(document.texts)
    assert texts[0].startswith("تفسیر کن.\nشعر") and texts[1].startswith("معنای")
