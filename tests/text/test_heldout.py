"""The held-out split: by document, across sources, by text where its key is another one; written once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import DataError, EmptyCorpusError
from persianmind.recipe import Recipe
from persianmind.text import corpus as corpus_module
from persianmind.text.corpus import training_documents, training_texts
from persianmind.text.heldout import (
    INDEX,
    HeldOutDocument,
    fingerprints_of,
    held_out_fingerprints,
    read_held_out,
    read_index,
    select_held_out,
    write_held_out,
)
from persianmind.text.spec import source_spec, source_specs

POEMS = 400


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Poems, their interpretations as instruction records under the same keys, and a site of copies."""
    poems = [{"id": f"poem/{i}", "text": f"شعر شمارهٔ {i} از دیوان"} for i in range(POEMS)]
    asked = [
        {"id": f"poem/{i}", "instruction": "تفسیر کن.", "input": f"شعر {i}", "output": f"معنای {i}"}
        for i in range(POEMS)
    ]
    copied = [{"id": f"site/{i}", "text": f"شعر  شمارهٔ {i} از ديوان"} for i in range(POEMS)]  # other spelling
    sources: dict[str, Any] = {}
    for name, records, kind in (
        ("fa", poems, "text"),
        ("ask", asked, "instruction"),
        ("site", copied, "text"),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
        kind = "instruction" if name == "ask" else "text"
        sources[name] = {"uri": str(tmp_path / f"{name}.jsonl"), "kind": kind, "group_by": "id"}
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


def held_out(recipe: Recipe) -> list[HeldOutDocument]:
    """The held-out Persian documents."""
    return select_held_out(recipe).get("fa", [])


def trained(recipe: Recipe, *names: str, evaluated: frozenset[int] | None = None) -> list[str]:
    """The training texts of these sources."""
    found = fingerprints_of(select_held_out(recipe)) if evaluated is None else evaluated
    return list(training_texts(source_specs(recipe, names), found))


def keys(recipe: Recipe, name: str) -> set[str]:
    """The keys of the training documents of one source."""
    return {one.key for one in training_documents(source_spec(recipe, name), frozenset())}


def changed(recipe: Recipe, **heldout: Any) -> Recipe:
    """The same with another held-out section."""
    return recipe.model_copy(update={"heldout": recipe.heldout.model_copy(update=heldout)})


# --- the split -------------------------------------------------------------------------------------------
def test_split_is_by_document_and_covers_every_source(recipe: Recipe) -> None:
    held = {one.key for one in held_out(recipe)}
    assert 20 < len(held) < 60
    left = keys(recipe, "fa")
    assert left.isdisjoint(held) and len(left | held) == POEMS
    assert keys(recipe, "ask") == left


def test_same_text_under_another_key_is_not_trained_on(recipe: Recipe) -> None:
    held = {one.text for one in held_out(recipe)}
    assert len(fingerprints_of(select_held_out(recipe))) == len(held)
    assert held.isdisjoint(trained(recipe, "fa", "ask", "site"))
    leaked = trained(recipe, "site", evaluated=frozenset())
    assert not held.isdisjoint(leaked), "the control: without the guard it leaks"


def test_split_does_not_depend_on_order_or_on_other_records(recipe: Recipe) -> None:
    before = {one.key for one in held_out(recipe)}
    path = Path(str(recipe.sources["fa"].uri))
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True)[50:])))
    after = {one.key for one in held_out(recipe)}
    assert after <= before and len(after) > 0.7 * len(before)


def test_seed_moves_the_split(recipe: Recipe) -> None:
    assert held_out(recipe) != held_out(recipe.model_copy(update={"seed": 4}))


def test_nothing_is_held_out_where_nothing_is_evaluated(recipe: Recipe, tmp_path: Path) -> None:
    none = changed(recipe, sources=[])
    assert len(keys(none, "fa")) == POEMS
    assert select_held_out(none) == {}
    write_held_out(none, tmp_path / "heldout")
    assert not (tmp_path / "heldout").exists() and held_out_fingerprints(None) == frozenset()


def test_held_out_characters_are_capped(recipe: Recipe) -> None:
    capped = changed(recipe, max_characters=100)
    texts = [one.text for one in held_out(capped)]
    assert 100 <= sum(map(len, texts)) < 130
    everything = [one.text for one in held_out(recipe)]
    assert texts == everything[: len(texts)]
    # what is held out but not evaluated stays unused all the same
    assert set(everything).isdisjoint(trained(capped, "fa"))


def test_instruction_records_give_each_of_their_turns(recipe: Recipe) -> None:
    texts = trained(recipe, "ask")
    document = next(iter(training_documents(source_spec(recipe, "ask"), frozenset())))
    assert texts[:2] == list(document.texts)
    assert texts[0].startswith("تفسیر کن.\nشعر") and texts[1].startswith("معنای")


# --- the files -------------------------------------------------------------------------------------------
@pytest.fixture
def folder(recipe: Recipe, tmp_path: Path) -> Path:
    """The held-out text of dialogues and poems, written."""
    write_held_out(changed(recipe, sources=["ask", "fa"]), tmp_path / "heldout")
    return tmp_path / "heldout"


def test_what_is_written_is_what_was_selected(recipe: Recipe, folder: Path) -> None:
    both = changed(recipe, sources=["ask", "fa"])
    assert read_held_out(folder, "fa") == select_held_out(both)["fa"]
    assert held_out_fingerprints(folder) == fingerprints_of(select_held_out(both))
    assert {one.source for one in read_held_out(folder, "fa")} == {"ask", "fa"}
    entry = read_index(folder).languages["fa"]
    texts = [one.text for one in read_held_out(folder, "fa")]
    assert entry.n_documents == len(texts)
    assert entry.n_bytes == sum(len(text.encode()) for text in texts) > entry.n_characters
    lines = (folder / "fa.jsonl").read_text(encoding="utf-8").splitlines()
    assert set(json.loads(lines[0])) == {"key", "source", "text", "crc"}


def test_raw_sources_are_streamed_once(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = changed(recipe, sources=["ask", "fa"])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(corpus_module, "stream_records", lambda *_: pytest.fail("read a raw source again"))
    write_held_out(both, folder)
    assert read_held_out(folder, "fa") and held_out_fingerprints(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(pytest.fail.Exception, match="again"):  # the control: other settings need it
        write_held_out(both.model_copy(update={"seed": 5}), folder)


@pytest.mark.parametrize("what", ["seed", "ratio", "normalise", "source"])
def test_other_settings_or_another_source_write_it_anew(recipe: Recipe, folder: Path, what: str) -> None:
    both = changed(recipe, sources=["ask", "fa"])
    index = read_index(folder)
    if what == "source":
        path = Path(str(recipe.sources["fa"].uri))
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    changes: dict[str, Any] = {
        "seed": {"seed": 9},
        "ratio": {"heldout": both.heldout.model_copy(update={"ratio": 0.2})},
        "normalise": {"normalise": both.normalise.model_copy(update={"digits": "persian"})},
        "source": {},
    }[what]
    other = both.model_copy(update=changes)
    write_held_out(other, folder)
    assert read_index(folder).built_from != index.built_from
    assert read_held_out(folder, "fa") == select_held_out(other)["fa"]


def test_any_flipped_bit_is_named_with_its_file_and_the_fix(recipe: Recipe, folder: Path) -> None:
    chance = random.Random(2)
    both = changed(recipe, sources=["ask", "fa"])
    for name in ("fa.jsonl", INDEX):
        good = (folder / name).read_bytes()
        for _ in range(25):
            damaged = bytearray(good)
            damaged[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
            (folder / name).write_bytes(damaged)
            for read in (lambda: read_held_out(folder, "fa"), lambda: write_held_out(both, folder)):
                with pytest.raises(
                    DataError, match=f"{name} is missing or damaged .* delete .*heldout and run"
                ):
                    read()
        (folder / name).write_bytes(good)
    assert read_held_out(folder, "fa")


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "fa.jsonl").unlink()
    with pytest.raises(DataError, match=r"fa\.jsonl is missing or damaged"):
        read_held_out(folder, "fa")
    (folder / INDEX).unlink()
    for read in (lambda: read_held_out(folder, "fa"), lambda: held_out_fingerprints(folder)):
        with pytest.raises(DataError, match=r"index\.json is missing"):
            read()


def test_a_language_that_is_not_evaluated_is_named(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"no text of language 'en'; give one that is held out, or another --output"
    ):
        read_held_out(folder, "en")


def test_a_language_of_which_nothing_is_held_out_is_an_error_and_nothing_is_written(
    recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(EmptyCorpusError, match=r"no document of language 'fa' .* raise heldout\.ratio=0"):
        write_held_out(changed(recipe, ratio=0.0), tmp_path / "none")
    assert not (tmp_path / "none").exists()
