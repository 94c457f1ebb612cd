"""Pairs in two languages: a task each way, in wordings of both, the same on every pass; held out together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import RecipeError
from persianmind.data.options import recipe_of
from persianmind.language import language_name, profile_for
from persianmind.recipe import Normalise, Quality, Source
from persianmind.text.clean import Dialogue, clean_record
from persianmind.text.decode import decode_record
from persianmind.text.parallel import pair_texts, translation_task
from persianmind.text.record import Position, Record
from persianmind.text.spec import SourceSpec
from persianmind.text.stream import read_records
from tests.text.helpers import line, read

PAIRS = [("Hello world", "سلام دنیا"), ("How are you?", "حالت چطور است؟"), ("Book", "كتاب")]
LANGUAGES = {"en": "en", "fa": "fa"}
PHRASES = profile_for("fa").phrases


def source(path: Path, **changes: Any) -> Source:
    return Source.model_validate({"uri": str(path), "kind": "parallel", "languages": LANGUAGES, **changes})


def spec_of(one: Source) -> SourceSpec:
    return SourceSpec(
        name="s", source=one, normalise=Normalise(), quality=Quality(), held_out_ratio=0.0, seed=0
    )


def dialogues(path: Path, one: Source) -> list[Dialogue]:
    spec = spec_of(one)
    records = [decode_record("s", one, raw) for raw in read_records("s", one)]
    cleaned = [clean_record(record, spec) for record in records if isinstance(record, Record)]
    assert all(isinstance(dialogue, Dialogue) for dialogue in cleaned)
    return [dialogue for dialogue in cleaned if isinstance(dialogue, Dialogue)]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"".join(line({"en": e, "fa": f}) for e, f in PAIRS))
    return path


def test_both_directions_in_the_spelling_of_each(pairs: Path) -> None:
    found = dialogues(pairs, source(pairs))
    answers = [dialogue.messages[1].content for dialogue in found]
    assert answers == ["سلام دنیا", "Hello world", "حالت چطور است؟", "How are you?", "کتاب", "Book"]
    questions = [dialogue.messages[0].content.split("\n")[1] for dialogue in found]
    assert questions == ["Hello world", "سلام دنیا", "How are you?", "حالت چطور است؟", "Book", "کتاب"]
    assert [found[i].key == found[i + 1].key for i in range(5)] == [True, False, True, False, True]
    assert [dialogue.messages for dialogue in dialogues(pairs, source(pairs))] == [d.messages for d in found]


def test_wordings_of_both_languages_name_the_right_ones(tmp_path: Path) -> None:
    one = source(tmp_path)
    seen = set()
    for i in range(200):
        for part, target in ((0, "fa"), (1, "en")):
            texts = (f"text {i}", f"متن {i}")
            asked, answer = translation_task(texts, spec_of(one), part).messages
            wording, _, shown = asked.content.partition("\n")
            assert (shown, answer.content) == (texts[part], texts[1 - part])
            assert PHRASES.languages[target] in wording or language_name(target) in wording
            assert "{" not in wording
            seen.add(wording)
    assert len(seen) == 2 * (len(PHRASES.translate) + len(profile_for("en").phrases.translate))


def test_templates_and_languages_of_the_recipe(tmp_path: Path) -> None:
    own = source(tmp_path, languages={"sv": "a", "fa": "b"}, templates={"fa": ["به {target}:"]})
    assert pair_texts({"a": "hej", "b": "سلام"}, own) == ("hej", "سلام")
    assert translation_task(("hej", "سلام"), spec_of(own), 1).messages[0].content == "به sv:\nسلام"
    foreign = source(tmp_path, languages={"sv": "a", "da": "b"})
    assert "Swedish" in translation_task(("hej", "hej"), spec_of(foreign), 1).messages[0].content


def test_pairs_below_translation_and_every_position(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"".join(line({"id": 1, "translation": {"en": e, "fa": f}}) for e, f in PAIRS))
    one = source(path)
    records = list(read_records("s", one))
    assert [record.place for record in records] == [f"pairs.jsonl:{n}" for n in (1, 1, 2, 2, 3, 3)]
    for i, record in enumerate(records):
        assert list(read_records("s", one, record.after)) == records[i + 1 :]
    assert list(read_records("s", one, Position())) == records
    assert len(dialogues(path, one)) == 6


BAD = [
    ({"en": "a"}, "missing_field"),
    ({"en": "a", "fa": None}, "null_text"),
    ({"en": "a", "fa": ["b"]}, "wrong_type"),
    ({"en": "a", "fa": " "}, "empty_text"),
    ({"en": "a", "fa": "\0"}, "control_characters"),
]


@pytest.mark.parametrize(("record", "reason"), BAD)
def test_a_pair_that_is_none_is_two_bad_records(tmp_path: Path, record: Any, reason: str) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(line(record))
    _, quarantine, _ = read(tmp_path / "pairs.jsonl", kind="parallel", languages=LANGUAGES)
    assert dict(quarantine.rejected) == {reason: 2}


MISTAKES = [
    ({}, "kind parallel needs the fields of two languages"),
    ({"languages": "{en: a}"}, "kind parallel needs the fields of two languages"),
    ({"kind": "text", "languages": "{en: a, fa: b}"}, "languages and templates are for kind parallel"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes_are_one_line(settings: dict[str, str], message: str) -> None:
    kind = settings.get("kind", "parallel")
    options = [f"sources.source.{key}={value}" for key, value in settings.items() if key != "kind"]
    with pytest.raises(RecipeError, match=message) as error:
        recipe_of(None, ["x.jsonl"], kind, "fa", "text", options)
    assert "\n" not in str(error.value)
