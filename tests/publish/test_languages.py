"""Models in other languages than Persian: their cards, the prompts of the check, the scale that is named."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from persianmind.data.chat_form import ChatForm
from persianmind.publish.check import check_prompts
from persianmind.publish.manifest import write_export_manifest
from persianmind.publish.sweep import ScaleScore, best_scale
from persianmind.publish.weights import TrainedRun
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.records import RunResults
from persianmind.text.dialogue import Message
from tests.publish.helpers import Write, tiny
from tests.train.test_summary import SCORES


def georgian(**changes: Any) -> Recipe:
    """The tiny recipe with its sources of Persian said to be Georgian."""
    names = ("poems", "messages", "translate", "interpret")
    return tiny(**{f"sources__{name}__language": "ka" for name in names}, **changes)


def test_a_code_with_a_script_is_its_language_in_the_metadata(written: Write) -> None:
    card, text = written(tiny(sources__poems__language="sr_Latin", sources__messages__language="sr"))
    assert (
        card.data.language == ["sr", "en", "fa"]
        and "text in Serbian (Latin), Serbian, English, Persian: " in text
    )


def test_languages_are_named_in_prose(written: Write) -> None:
    results = RunResults(evaluation=[one.model_copy(update={"language": "ka"}) for one in SCORES])
    card, text = written(georgian(), results)
    assert card.data.language == ["ka", "en"] and "text in Georgian, English: " in text
    assert "| after | bits per byte, Georgian |" in text and "(Georgian: " in text


def test_the_spelling_of_the_text_is_said_with_the_code_that_gives_it(written: Write, tmp_path: Path) -> None:
    _, text = written()
    assert "Training text in Persian was normalised (letters typed for others that look the same; " in text
    code = 'from persianmind.language import profile_for; profile_for("fa").normalise(prompt)'
    assert f"the tokenizer does not do so: `{code}` gives a prompt the same spelling." in text
    assert spelled(code, "كتاب", tmp_path) == "کتاب"
    assert "Training text in English was put in Unicode NFC." in text


def spelled(code: str, prompt: str, folder: Path) -> str:
    """What the last statement of code in a card gives."""
    *before, last = code.split("; ")
    script = folder / "spell.py"
    script.write_text("\n".join([*before, f"spelled = {last}"]), encoding="utf-8")
    return str(runpy.run_path(str(script), {"prompt": prompt})["spelled"])


def test_a_language_with_no_rules_but_nfc_is_said_to_be_composed(written: Write) -> None:
    _, text = written(georgian())
    assert "- Training text in Georgian and English was put in Unicode NFC.\n" in text
    assert "normalised" not in text and "profile_for" not in text


def test_text_that_was_not_normalised_is_not_said_to_be(written: Write) -> None:
    off = {"enabled": False}
    for recipe in (
        tiny(normalise=off),
        georgian(normalise=off),
        georgian(normalise={"rules": {"nfc": False}}),
    ):
        _, text = written(recipe)
        assert "normalised" not in text and "NFC" not in text


def test_rules_of_ones_own_are_read_from_the_export(
    written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = {"name": "Kartuli |*", "scripts": ["Georgian"], "replace": {"quotes": {"«": "„", "»": "“"}}}
    recipe = georgian(profiles={"ka": profile})
    _, text = written(recipe)
    assert "Training text in Kartuli \\|\\* was normalised (« to „, » to “) and" in text
    (code,) = re.findall(r"`(from pathlib[^`]*)`", text)
    export = tmp_path / "export"
    export.mkdir()
    made = {
        "kind": "hf", "recipe": "", "step": 1, "stage": None, "adapter_scale": 1.0, "base_fingerprint": "",
        "tokenizer_fingerprint": "", "check": None, "profiles": recipe.profiles,
    }  # fmt: skip
    write_export_manifest(export, **made, normalise=recipe.normalise)
    monkeypatch.chdir(export)
    assert spelled(code, "«ა»", tmp_path) == "„ა“"


def test_options_of_the_normaliser_are_told(written: Write) -> None:
    _, text = written(tiny(normalise={"digits": "native", "rules": {"letters": False}}))
    assert "digits to its own) and" in text and "letters typed for others" not in text
    assert 'profile_for("fa", made.profiles).normalise(prompt, made.normalise)`' in text


@pytest.mark.parametrize(("recipe", "probe"), [(tiny(), "سلام دنیا"), (georgian(), "ႠႡႢ ႣႤႥ")])
def test_prompts_of_the_runs_own_language_are_compared(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, probe: str
) -> None:
    seen: list[str] = []

    def template(turns: list[dict[str, str]], **_: object) -> list[str]:
        seen.extend(turn["content"] for turn in turns)
        return [turn["content"] for turn in turns]

    def prompt_ids(messages: list[Message]) -> list[str]:
        return [message.content for message in messages]

    exported = SimpleNamespace(apply_chat_template=template)
    monkeypatch.setattr("persianmind.publish.check._auto_tokenizer", lambda _: exported)
    check_prompts(Path(), cast(ChatForm, SimpleNamespace(prompt_ids=prompt_ids)), recipe)
    assert {probe, "Hello", *recipe.evaluate.prompts} <= {*seen}


def test_a_scale_is_judged_in_the_language_of_the_run(tmp_path: Path) -> None:
    """Also where another language is held out before it."""
    recipe = tiny(sources__messages__language="ar", heldout__sources=["messages", "poems"])
    run = cast(TrainedRun, SimpleNamespace(recipe=recipe, folder=RunFolder(tmp_path)))
    scores = [ScaleScore(0.5, {"ar": 1.0, "fa": 2.0}), ScaleScore(1.0, {"ar": 2.0, "fa": 1.0})]
    assert best_scale(run, scores, 0.1) == scores[1]
