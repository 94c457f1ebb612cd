"""Every key of the recipe has a decision, and a run folder keeps to it: what may differ, from when on not."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from persianmind.common.errors import RunFolderError
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run import identity
from persianmind.run.folder import RunFolder
from persianmind.run.identity import FIXED, changes, difference, recipe_fingerprint
from persianmind.run.keys import KEYS, Effect
from persianmind.run.log import read_results, update_results
from persianmind.run.records import Determinism, Recompute

# A recipe that has every section there is.
PROFILE = {
    "name": "Georgian",
    "scripts": ["Georgian"],
    "letters": "ა-ჰ",
    "prompt": {"context": "A conversation."},
    "replace": {"dash": {"–": "-"}},
}
WHOLE = load_recipe("tiny").model_dump(mode="json") | {"profiles": {"ka": PROFILE}}
WHOLE["evaluate"] |= {"forgetting": {"language": "fa"}}
BASE = Recipe.model_validate(WHOLE)
WHOLE = BASE.model_dump(mode="json")
VALUES: list[Any] = [
    True, False, 1, 2, 3, 0.25, 0.5, 17, 99, "x", "ka", "GEO", "'", "ა-ფ", None, ["x"], ["Latin"], ["poems"],
    {"x": "y"}, {"dash": {"a": "b"}}, {"poems": 1.0}, {"space_runs": False}, {"output": "x"},
    ["adapters"], ["wandb"], [0.5, 0.5],
]  # fmt: skip
# Keys that cannot change alone: what changes with them.
PARALLEL = {"sources.poems.kind": "parallel", "sources.poems.languages": {"en": "x", "ka": "y"}}
TOGETHER: dict[str, dict[str, Any]] = {
    "stages.0.epochs": {"stages.0.tokens": None, "stages.0.epochs": {"poems": 1.0}},
    "stages.0.steps": {"stages.0.tokens": None, "stages.0.steps": 3},
    "sources.poems.kind": PARALLEL,
    "sources.poems.languages": PARALLEL,
    "sources.poems.templates": PARALLEL | {"sources.poems.templates": {"en": ["{target}"]}},
}
NAMES = {"sources": "poems", "profiles": "ka", "stages": "0"}


def keys_of(annotation: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, its type) of everything below a type, by pydantic's own account of it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from keys_of(field.annotation, f"{place}.{name}".lstrip("."))
        return
    inner = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        sections = [one for one in inner if one is not type(None)]
        yield from keys_of(sections[0], place) if len(sections) == 1 else [(place, annotation)]
    elif get_origin(annotation) in (list, dict) and _is_section(inner[-1]):
        yield from keys_of(inner[-1], f"{place}.*")
    else:
        yield place, annotation


def options(annotation: Any) -> Iterator[Any]:
    """What the literals of a type allow."""
    for inner in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield inner
        else:
            yield from options(inner)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


TYPES = dict(keys_of(Recipe))


def place_of(key: str) -> str:
    """Where a key of the table stands in BASE."""
    return key.replace("*", NAMES.get(key.split(".")[0], ""))


def changed(key: str) -> Recipe:
    """BASE with another value of one key, and whatever has to change with it."""
    place = place_of(key)
    for value in [*options(TYPES[key]), *VALUES]:
        tree = deepcopy(WHOLE)
        for one, other in TOGETHER.get(place, {place: value}).items():
            _set(tree, one, other)
        try:
            recipe = Recipe.model_validate(tree)
        except ValidationError:
            continue
        if any(change.key == place for change in changes(BASE, recipe)):
            return recipe
    raise AssertionError(f"no other value for {key} is known to this test; add one to VALUES")


def _set(tree: Any, place: str, value: Any) -> None:
    *path, last = place.split(".")
    for part in path:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    tree[last] = value


def begun(folder: RunFolder, depends: str) -> None:
    """A folder with what depends on its recipe: nothing, "text" or "steps"."""
    folder.claim(BASE)
    if depends != "nothing":
        folder.vocab.mkdir(parents=True)
    if depends == "steps":
        (folder.checkpoints / "step-1").mkdir(parents=True)


def test_every_key_has_a_decision_and_none_is_of_yesterday() -> None:
    assert sorted(TYPES) == sorted(KEYS)


def test_control_a_new_key_without_a_decision_is_noticed() -> None:
    class Newer(Recipe):
        telescope: int = 3

    assert {*dict(keys_of(Newer))} - {*KEYS} == {"telescope"}
    recipe = Newer.model_validate(WHOLE)
    with pytest.raises(KeyError, match="telescope"):
        recipe_fingerprint(recipe)


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_key_does_what_the_table_says(key: str) -> None:
    recipe, effect = changed(key), KEYS[key]
    assert (recipe_fingerprint(recipe) != recipe_fingerprint(BASE)) is (effect in FIXED)
    for fixed in (frozenset({Effect.TEXT}), FIXED):
        found = difference(BASE, recipe, fixed)
        assert (found is not None) is (effect in fixed)
        assert found is None or found.key in TOGETHER.get(place_of(key), [place_of(key)])


@pytest.mark.parametrize("depends", ["nothing", "text", "steps"])
@pytest.mark.parametrize(
    "key", ["train.trackers", "export.dtype", "train.compile", "train.learning_rate", "vocab.new_tokens"]
)
def test_a_folder_keeps_to_what_depends_on_it(key: str, depends: str, tmp_path: Path) -> None:
    """Before anything does, what preparation advises can be done: another recipe is welcome."""
    recipe, effect, folder = changed(key), KEYS[key], RunFolder(tmp_path / "run")
    begun(folder, depends)
    update_results(folder, finished=True)
    if effect in {"nothing": frozenset(), "text": {Effect.TEXT}, "steps": FIXED}[depends]:
        with pytest.raises(RunFolderError, match=f"belongs to a run with {key}="):
            folder.claim(recipe)
        assert load_recipe(str(folder.recipe)) == BASE and read_results(folder).finished
        return
    folder.claim(recipe)
    assert load_recipe(str(folder.recipe)) == recipe
    makes_end_again = effect is Effect.RESULTS or effect in FIXED
    assert read_results(folder).finished is not makes_end_again


@pytest.mark.parametrize("key", [key for key, effect in KEYS.items() if effect is Effect.PATIENCE])
def test_what_is_measured_is_fixed_where_it_ends_stages(key: str) -> None:
    patient = BASE.model_copy(update={"evaluate": BASE.evaluate.model_copy(update={"patience": 2})})
    other = changed(key)
    as_patient = other.model_copy(update={"evaluate": other.evaluate.model_copy(update={"patience": 2})})
    found = difference(patient, as_patient)
    assert difference(BASE, other) is None and found is not None and found.key == key


def test_control_the_table_is_what_lets_keys_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    other = changed("train.trackers")
    assert difference(BASE, other) is None
    monkeypatch.setitem(identity.KEYS, "train.trackers", Effect.STEPS)
    found = difference(BASE, other)
    assert found is not None and found.key == "train.trackers"
    assert recipe_fingerprint(other) != recipe_fingerprint(BASE)


@pytest.mark.parametrize("key", ["train.micro_batch_size", "train.memory_gb", "train.deterministic"])
def test_decisions_that_a_key_led_to_are_made_again(key: str, tmp_path: Path) -> None:
    """Otherwise the new value would have no effect; a key that decides nothing leaves them alone."""
    folder = RunFolder(tmp_path)
    begun(folder, "steps")
    decided = Recompute(setting="full", needed_bytes=1, usable_bytes=2)
    update_results(folder, recompute=decided, determinism=Determinism(strict=True), finished=True)
    folder.claim(changed("train.trackers"))
    assert read_results(folder).recompute == decided
    folder.claim(changed(key))
    results = read_results(folder)
    assert results.recompute is None and results.determinism is None and results.finished


def test_what_changed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "persianmind")
    folder = RunFolder(tmp_path)
    begun(folder, "steps")
    folder.claim(BASE)
    assert caplog.messages == []
    folder.claim(changed("train.micro_batch_size"))
    assert caplog.messages == [
        "recipe: train.micro_batch_size is 2 now, was 1; the samples are the same, losses agree to rounding"
    ]


def test_a_source_more_is_another_run(tmp_path: Path) -> None:
    tree = deepcopy(WHOLE)
    tree["sources"]["more"] = tree["sources"]["poems"]
    found = difference(BASE, Recipe.model_validate(tree))
    assert found is not None and (found.key, found.before) == ("sources.more.uri", None)
    keys = [change.key for change in changes(BASE, Recipe.model_validate(tree))]
    assert list(itertools.filterfalse(lambda one: one.startswith("sources.more."), keys)) == []
