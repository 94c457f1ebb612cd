"""Which profile a code selects, and what a recipe's own says."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.common.errors import RecipeError
from persianmind.language import (
    language_name,
    profile_for,
    profile_named,
    run_profile,
    target_language,
    vocabulary_profile,
)
from persianmind.language.arabic import PROFILE as ARABIC
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.language.persian import normalise
from persianmind.recipe.loading import dump_recipe, load_recipe, parse_recipe
from persianmind.text.spec import source_spec

GEORGIAN = """name: Georgian
scripts: [Georgian]
letters: "ა-ჰ"
word_characters: "-"
replace:
  quotes: {"``": "„", "''": "“"}
probes: {sentences: ["თბილისი საქართველოს დედაქალაქია."]}
prompt: {context: "This is a conversation in Georgian."}
phrases: {translate: ["თარგმნე: {target}"], languages: {en: "ინგლისურად"}}
siblings: [xmf]
"""
RECIPE = """name: r
base: none
profiles: {ka: georgian.yaml}
sources: {text: {uri: a.txt, language: ka}}
stages: [{name: one, sources: {text: 1.0}, tokens: 1000}]
"""


def test_codes_with_a_profile_of_their_own() -> None:
    assert profile_for("fa") is PERSIAN and profile_for("ar") is ARABIC
    assert (PERSIAN.name, PERSIAN.code, PERSIAN.direction, DEFAULT_LANGUAGE) == ("Persian", "fa", "rtl", "fa")
    assert PERSIAN.normalise is normalise


@pytest.mark.parametrize(
    ("code", "name", "direction"),
    [
        ("ka", "Georgian", "ltr"),
        ("ur", "Urdu", "rtl"),
        ("sr_Latin", "Serbian (Latin)", "ltr"),
        ("th", "Thai", "ltr"),
        ("sr-Latn", "Serbian (Latin)", "ltr"),
        ("zh_Hans", "Chinese", "ltr"),
    ],
)
def test_any_other_language_has_the_generic_profile_of_its_script(
    code: str, name: str, direction: str
) -> None:
    profile = profile_for(code)
    assert (profile.name, profile.code, profile.direction) == (name, code, direction)
    assert list(profile.rules) == ["nfc"]
    assert name in profile.prompt.context


def test_an_unknown_code_is_one_line_with_the_fix() -> None:
    with pytest.raises(RecipeError, match=r"no language is known by the code 'kx'.*profiles: \{kx: my-"):
        profile_for("kx")
    with pytest.raises(RecipeError, match="no Unicode script 'Georgan'"):
        profile_for("ka_Georgan")
    with pytest.raises(RecipeError, match="'Braille' has no letters"):
        profile_for("fa_Braille")
    assert language_name("ka") == "Georgian" and language_name("kx") == "kx"


def test_the_target_is_the_first_language_that_is_not_english() -> None:
    assert target_language(["en", "ka", "fa"]) == "ka"
    assert target_language(["en"]) == target_language([]) == "en"


def test_prompt_is_the_papers() -> None:
    assert PERSIAN.prompt.user_turn == "You: "
    assert PERSIAN.prompt.assistant_turn == "PersianMind: "
    assert PERSIAN.prompt.context.startswith("This is a conversation with PersianMind")


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    (tmp_path / "georgian.yaml").write_text(GEORGIAN, encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_a_profile_beside_the_recipe(recipe_file: Path, outside: Path) -> None:
    recipe = load_recipe(str(recipe_file))
    profile = run_profile(recipe)
    assert profile is vocabulary_profile(recipe)
    assert profile.normalise("``ა''") == "„ა“"
    assert profile.script.word.findall("ქალაქ-გარეთ, and Ⴀ") == ["ქალაქ-გარეთ"]
    assert profile.prompt.context == "This is a conversation in Georgian."
    assert profile.quality.siblings == ("xmf",) and profile.phrases.languages["en"] == "ინგლისურად"
    assert profile.probes.spaces[-1] == "თბილისი საქართველოს დედაქალაქია."
    assert source_spec(recipe, "text").profile is profile
    written = outside / "copy.yaml"  # a run's own recipe is whole: the profile's file may be gone
    written.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(written)).profiles == recipe.profiles


def test_a_profile_named_on_the_command_line(recipe_file: Path) -> None:
    profile = profile_named(str(recipe_file.parent / "georgian.yaml"))
    assert (profile.code, profile.name) == ("georgian", "Georgian")
    assert profile_named("ka").name == "Georgian"
    (recipe_file.parent / "own.yaml").write_text(f"code: ka\n{GEORGIAN}", encoding="utf-8")
    assert profile_named(str(recipe_file.parent / "own.yaml")).code == "ka"


def test_ascii_letters_of_an_alphabet_stay_shared_with_other_text(tmp_path: Path) -> None:
    """Were they the alphabet's own, English text would count as Turkish."""
    path = tmp_path / "tr.yaml"
    path.write_text('name: Turkish\nscripts: [Latin]\nletters: "a-zçğıöşüA-ZÇĞİÖŞÜ"\n', encoding="utf-8")
    script = profile_named(str(path)).script
    assert not script.character.search("the page") and script.character.search("şu")
    assert not script.is_piece(" sayfa") and script.is_piece(" şehir") and script.is_piece(" où")
    assert script.word.findall("İstanbul où") == ["İstanbul", "o"]


@pytest.mark.parametrize("script", ["Devanagari", "Thai", "Arabic", "Latin", "Georgian"])
def test_marks_inside_words_of_any_script(script: str, tmp_path: Path) -> None:
    path = tmp_path / "xx.yaml"
    path.write_text(f'name: X\nscripts: [{script}]\nword_characters: "\'-]"\n', encoding="utf-8")
    found = profile_named(str(path)).script
    assert not found.is_piece("'-") and not found.character.search("'-]")


def test_an_alphabet_takes_no_beginnings_of_characters_away(recipe_file: Path) -> None:
    assert profile_named(str(recipe_file.parent / "georgian.yaml")).script.is_part_of_character(b"\xe1\x83")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ა-ჰ", "ა-ჰж"), "'ж'"),
        (("[Georgian]", "[Georgan]"), "no Unicode script 'Georgan'"),
        (('"ა-ჰ"', '"[ა-ჰ]"'), "without brackets"),
        (('"ა-ჰ"', '"ჰ-ა"'), "no list of characters and ranges"),
        (('"ა-ჰ"', '"a-zა-ჰ"'), "'a' is none of them"),
        (('word_characters: "-"', 'word_characters: "a"'), "give marks such as"),
        (("siblings", "sibling"), "sibling"),
        (('"``": "„"', '"``": "``„"'), "changes '``' again"),
        (("დედაქალაქია.", "``დედაქალაქია''"), "is not spelled by the profile's own rules"),
        ((GEORGIAN, "- a list"), "is a mapping of keys"),
        ((GEORGIAN, "a: [b"), "not valid YAML"),
    ],
)
def test_a_mistake_in_a_profile_is_one_line(change: tuple[str, str], message: str, recipe_file: Path) -> None:
    path = recipe_file.parent / "georgian.yaml"
    path.write_text(GEORGIAN.replace(*change), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        run_profile(load_recipe(str(recipe_file)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_profile_that_is_not_there(recipe_file: Path) -> None:
    (recipe_file.parent / "georgian.yaml").unlink()
    with pytest.raises(RecipeError, match=r"no language profile at .*georgian.yaml"):
        load_recipe(str(recipe_file))


def test_rules_are_switched_by_name(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), ["normalise.rules.quotes=false"])
    spec = source_spec(recipe, "text")
    assert spec.profile.normalise("``ა''", spec.normalise) == "``ა''"
    with pytest.raises(RecipeError, match=r"no rule 'quote' \(did you mean 'quotes'\?\).*have: nfc, quotes"):
        source_spec(load_recipe(str(recipe_file), ["normalise.rules.quote=false"]), "text")
    with pytest.raises(RecipeError, match=r"normalise\.digits=native: the profile of Georgian has no"):
        source_spec(load_recipe(str(recipe_file), ["normalise.digits=native"]), "text")


@pytest.mark.parametrize("written", ["off", False, {"enabled": False}])
def test_normalise_off(written: object, recipe_file: Path) -> None:
    tree = load_recipe(str(recipe_file)).model_dump(mode="json") | {"normalise": written}
    assert not parse_recipe(tree, "test").normalise.enabled
    assert not load_recipe(str(recipe_file), ["normalise=off"]).normalise.enabled


def test_a_parallel_source_is_in_the_languages_of_its_pairs(recipe_file: Path) -> None:
    """Not in the one of sources that name none."""
    pairs = "sources.pairs={uri: b.jsonl, kind: parallel, languages: {en: en, ka: ka}}"
    recipe = load_recipe(str(recipe_file), [pairs])
    assert recipe.languages() == ["en", "ka"] and recipe.vocabulary_languages() == ["ka", "en"]
    assert run_profile(recipe).code == source_spec(recipe, "pairs").profile.code == "ka"
