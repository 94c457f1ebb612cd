"""Which spelling a source's records get: its own language's, or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from persianmind.recipe import Recipe
from persianmind.recipe.loading import parse_recipe
from persianmind.text.clean import Dialogue, Document, clean_record
from persianmind.text.decode import decode_record
from persianmind.text.record import Record
from persianmind.text.spec import source_spec
from persianmind.text.stream import read_records

RAW = " كـتابي\u200f  می\u00acروم خانۀ e\u0301 ﻻ\u00a0قُل\t"
SPELLED = {
    "fa": " کتابی می\u200cروم خانه\u0654 e\u0301 لا قُل\t",
    "ar": " كتابي می\u00acروم خانۀ e\u0301 لا قُل\t",
    "ur": " كـتابي\u200f  می\u00acروم خانۀ é ﻻ\u00a0قُل\t",
    "en": " كـتابي\u200f  می\u00acروم خانۀ é ﻻ\u00a0قُل\t",
}


def recipe_of(path: Path, kind: str, language: str, normalise: object) -> Recipe:
    tree = {
        "name": "r",
        "base": "none",
        "normalise": normalise,
        "quality": {"enabled": False},
        "sources": {"s": {"uri": str(path), "kind": kind, "language": language}},
        "stages": [{"name": "one", "sources": {"s": 1.0}, "tokens": 1000}],
    }
    return parse_recipe(tree, "test")


def cleaned(path: Path, kind: str, language: str, normalise: object) -> Document | Dialogue:
    recipe = recipe_of(path, kind, language, normalise)
    (raw,) = read_records("s", recipe.sources["s"])
    record = decode_record("s", recipe.sources["s"], raw)
    assert isinstance(record, Record)
    found = clean_record(record, source_spec(recipe, "s"))
    assert isinstance(found, Document | Dialogue)
    return found


@pytest.mark.parametrize("language", SPELLED)
def test_only_the_sources_own_profile_touches_it(language: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": RAW}) + "\n", encoding="utf-8")
    assert cleaned(path, "text", language, {}).texts == (SPELLED[language],)
    assert cleaned(path, "text", language, "off").texts == (RAW,)


def test_turns_of_dialogues_lose_only_the_space_about_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"instruction": RAW, "output": RAW}) + "\n", encoding="utf-8")
    assert cleaned(path, "instruction", "fa", "off").texts == (RAW.strip(),) * 2
    assert cleaned(path, "instruction", "fa", {}).texts == (SPELLED["fa"].strip(),) * 2
