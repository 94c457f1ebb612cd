"""Whether the text supports what a recipe asks of it: counted here by hand, not by the code that learns."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from persianmind.checks.base import CheckContext, CheckResult, Level
from persianmind.checks.text import check_text, times_seen
from persianmind.common.errors import EmptyCorpusError
from persianmind.model.bases import resolve_base
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.text.spec import source_spec
from persianmind.vocab import text_sample
from persianmind.vocab.text_sample import read_sample
from tests.data.helpers import build
from tests.support.launch import ZERO2

LETTERS = "ابپتثجچحخدذرزسشصضطظعغفقکگلمنوهی"


def write_text(path: Path, words: Sequence[str], per_document: int = 20) -> None:
    documents = [words[i : i + per_document] for i in range(0, len(words), per_document)]
    path.write_text(
        "".join(json.dumps({"text": " ".join(one)}, ensure_ascii=False) + "\n" for one in documents),
        encoding="utf-8",
    )


def recipe_of(path: Path, *overrides: str) -> Recipe:
    sources = [f"sources.poems.uri={path}", "vocab.sources=[poems]", "heldout.sources=[]"]
    stages = "stages=[{name: one, sources: {poems: 1.0}, tokens: 20000}]"
    quality = ["quality.enabled=false", "base=random://not-made-here"]
    return load_recipe("tiny", [*sources, stages, *quality, *overrides])


def findings(recipe: Recipe) -> dict[str, CheckResult]:
    return {one.name: one for one in check_text(CheckContext(recipe, ZERO2, RunFolder(Path("runs/x"))))}


@pytest.fixture
def few_pairs(tmp_path: Path) -> Path:
    """40 words of two letters, each 5 times or 200 times: with the space before, 40 pairs, then 40 words."""
    words = [a + b for a, b in zip(LETTERS, LETTERS[1:] + "آ", strict=True)][:32]
    text = [word for i, word in enumerate(words) for _ in range(200 if i < 10 else 5)]
    random.Random(0).shuffle(text)
    write_text(tmp_path / "few.jsonl", text)
    return tmp_path / "few.jsonl"


def test_more_pieces_than_pairs_occur_twice_is_a_failure(few_pairs: Path) -> None:
    found = findings(recipe_of(few_pairs, "vocab.new_tokens=10000"))["vocabulary"]
    assert found.level is Level.FAIL and "10,000 are asked for" in found.detail
    number = int(found.detail.split("supports ")[1].split(" ")[0].replace(",", ""))
    # By hand: each of 32 words can be joined at most twice (its letters, then the space before).
    assert 32 <= number <= 64


def test_pieces_that_are_too_rare_to_be_trained_are_a_warning(few_pairs: Path) -> None:
    found = findings(recipe_of(few_pairs, "vocab.new_tokens=30"))["vocabulary"]
    assert found.level is Level.WARN and "stay near their first value" in found.detail
    enough = findings(recipe_of(few_pairs, "vocab.new_tokens=10"))["vocabulary"]
    assert enough.level is Level.OK and "10 of them occur 100 times" in enough.detail


def test_the_number_of_words_with_a_hundred_occurrences_is_the_texts_own(few_pairs: Path) -> None:
    lines = few_pairs.read_text(encoding="utf-8").splitlines()
    counts = Counter(word for line in lines for word in json.loads(line)["text"].split())
    frequent = sum(count >= 100 for count in counts.values())
    found = findings(recipe_of(few_pairs, "vocab.new_tokens=30"))["vocabulary"]
    said = int(found.detail.split("but only ")[1].split(" ")[0])
    assert frequent == 10 and frequent <= said <= 2 * frequent


def georgian(path: Path, text: str, *overrides: str) -> Recipe:
    path.write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    return recipe_of(path, "sources.poems.language=ka", "vocab.new_tokens=5", *overrides)


def test_the_language_and_its_rules_are_named(tmp_path: Path) -> None:
    recipe = georgian(tmp_path / "a.jsonl", "ქართული ენა და ქართული ენა " * 150, "base=random://llama")
    found = findings(recipe)
    assert found["vocabulary"].level is Level.OK
    language = found["language"]
    assert language.level is Level.OK and language.detail.startswith("Georgian (ka), ltr; ")
    off = findings(georgian(tmp_path / "b.jsonl", "ქართული ენა " * 300, "normalise=off"))["language"]
    assert "its text is left as it is" in off.detail and "normalised by: nfc" in language.detail
    before, after = map(float, re.findall(r"(\d+\.\d\d)", language.detail))
    assert after < before


def test_text_of_another_script_is_seen_before_the_run(tmp_path: Path) -> None:
    other = findings(georgian(tmp_path / "a.jsonl", "हिन्दी में पाठ " * 300))["vocabulary"]
    assert other.level is Level.FAIL and "no Georgian word in it; name vocab.sources, or" in other.detail
    assert "sources.poems.language=ka" in other.detail and "at most 0" not in other.detail
    mixed = findings(georgian(tmp_path / "b.jsonl", "हिन्दी में पाठ " * 900 + "ქართული " * 150))
    assert (
        mixed["language"].level is Level.WARN
        and "is `language` of its sources right?" in mixed["language"].detail
    )


def test_what_a_script_limits_is_said(tmp_path: Path) -> None:
    thai = georgian(tmp_path / "a.jsonl", "ภาษาไทยเป็นภาษา " * 300, "sources.poems.language=th")
    assert "at most 16 characters" in findings(thai)["language"].detail
    turkish = georgian(tmp_path / "b.jsonl", "çok güzel şehir " * 300, "sources.poems.language=tr")
    assert "a letter outside ASCII" in findings(turkish)["language"].detail


def test_repetition_is_said_and_warned_of(few_pairs: Path) -> None:
    words = sum(len(json.loads(one)["text"].split()) for one in few_pairs.read_text("utf-8").splitlines())
    found = findings(recipe_of(few_pairs, "vocab.new_tokens=10"))["text of poems"]
    assert found.level is Level.WARN and "arXiv 2305.16264" in found.detail
    said = float(found.detail.split("seen ")[1].split(" ")[0])
    assert said == pytest.approx(20000 / (words * 1.43), rel=0.1)
    once = findings(recipe_of(few_pairs, "vocab.new_tokens=10", "stages.0.tokens=2048"))["text of poems"]
    assert once.level is Level.OK


def test_times_seen_adds_up_over_stages_in_tokens_and_epochs() -> None:
    stages = (
        "stages=[{name: a, sources: {poems: 3, english: 1}, tokens: 4096},"
        " {name: b, sources: {english: 1, translate: 1}, epochs: {english: 1.5}}]"
    )
    recipe = load_recipe("tiny", [stages])
    tokens = {"poems": 1024, "english": 2048, "translate": 1024}
    # a: poems 3072 of 1024, english 1024 of 2048; b: 3072 of each.
    assert times_seen(recipe, tokens) == {
        "poems": 3.0,
        "english": pytest.approx(0.5 + 1.5),
        "translate": 3.0,
    }
    assert times_seen(recipe, {**tokens, "translate": None}) == {
        "poems": 3.0,
        "english": pytest.approx(2.0),
        "translate": None,
    }


def test_a_long_text_is_read_in_part_and_counted_by_the_size_of_its_files(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    write_text(path, ["سلام", "کتاب"] * 5000)
    recipe = recipe_of(path)
    texts: list[str] = []
    sample = read_sample(source_spec(recipe, "poems"), texts.append, max_characters=5000)
    assert sample is not None and not sample.is_whole and 5000 <= sum(map(len, texts)) < 6000
    whole = read_sample(source_spec(recipe, "poems"), lambda text: None)
    assert whole is not None and whole.is_whole and sample.whole_over_read is not None
    # JSON around the text: a little more than the text itself.
    assert sample.words * sample.whole_over_read == pytest.approx(whole.words, rel=0.25)


def test_reading_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.jsonl"
    write_text(path, ["سلام", "کتاب"] * 5000)
    monkeypatch.setattr(text_sample, "MAX_S", 0.0)
    sample = read_sample(source_spec(recipe_of(path), "poems"), lambda text: None)
    assert sample is not None and not sample.is_whole


def test_sources_of_the_network_are_not_read() -> None:
    recipe = load_recipe("tiny", ["sources.poems.uri=hf://someone/poems"])
    assert read_sample(source_spec(recipe, "poems"), lambda text: None) is None


def test_instructions_that_no_sequence_takes_are_seen_before_the_run(tmp_path: Path) -> None:
    """Against builds of the same records, which set aside what is too long."""
    recipe = load_recipe("tiny", ["vocab.new_tokens=0", "stages.1.seq_len=128", "stages.2.seq_len=64"])
    base = resolve_base(recipe.base)
    found = findings(recipe)
    none = found["length of interpret@64"]
    assert none.level is Level.FAIL and none.detail == (
        "all 954 records read are longer than 64 tokens and would be set aside; raise stages.2.seq_len"
    )
    with pytest.raises(EmptyCorpusError, match=r"954 instruction_longer_than_sequence.* takes it"):
        build(_packed_at(recipe, 64), "interpret", base, tmp_path / "none")
    some = found["length of translate@128"]
    assert some.level is Level.WARN and some.detail.endswith("raise stages.1.seq_len")
    manifest = build(_packed_at(recipe, 128), "translate", base, tmp_path / "some")
    aside = manifest.dropped["instruction_longer_than_sequence"].count
    real = aside / (manifest.records_read - manifest.documents_held_out)
    said = int(some.detail.removeprefix("about ").split("%")[0]) / 100
    assert 0.75 * real < said < real + 0.02


def _packed_at(recipe: Recipe, seq_len: int) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"seq_len": seq_len})})


def test_instructions_that_fit_and_text_of_any_length_get_no_line() -> None:
    found = findings(load_recipe("tiny", ["stages.0.seq_len=32"]))
    assert not [name for name in found if name.startswith("length of ")]
