"""Nothing in the vocabulary package knows Persian: a language of another script goes the same way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from persianmind.common.errors import EmptyCorpusError, ExactnessError
from persianmind.language import LanguageProfile
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.language.profile import GateProbes, PromptTemplate, QualityPatterns
from persianmind.language.script import Script
from persianmind.recipe import Normalise
from persianmind.vocab.build import build_vocab, read_corpus
from persianmind.vocab.families import open_base
from persianmind.vocab.gate import HFTokenizer, check_exactness
from persianmind.vocab.plan import ModelShape, make_plan
from persianmind.vocab.report import make_report
from persianmind.vocab.texts import read_texts
from tests.vocab.helpers import package_texts

CYRILLIC = Script(letters="а-яёА-ЯЁ")
RUSSIAN_TEXTS = [
    f"Слово {i % 7} и дело: {word} {word}, {other} не {word}."
    for i, (word, other) in enumerate(
        (word, other)
        for word in ("вода", "земля", "дорога", "человек", "работа", "говорить")
        for other in ("большой", "маленький", "хорошо", "сегодня", "вчера")
    )
]


def lower_case(text: str, options: Normalise = Normalise()) -> str:
    return text.lower()


RUSSIAN = LanguageProfile(
    name="Russian",
    code="ru",
    direction="ltr",
    script=CYRILLIC,
    normalise=lower_case,
    rules={"lower_case": "small letters"},
    probes=GateProbes(spaces=("  привет  мир ",)),
    prompt=PromptTemplate("", "", ""),
    quality=QualityPatterns(re.compile(r"[^\w\s]")),
)


def texts() -> Iterator[str]:
    return iter(RUSSIAN_TEXTS)


@pytest.mark.parametrize("name", ["smollm2", "mistral"])
def test_pieces_of_another_script(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    mixed = [*RUSSIAN_TEXTS, *package_texts()[:50]]
    out = tmp_path / "out"
    expansion = build_vocab(bases[name], lambda: iter(mixed), out, new_tokens=15, profile=RUSSIAN)
    assert all(CYRILLIC.is_piece(piece.text) for piece in expansion.pieces)
    assert expansion.fertility["ru"].after < expansion.fertility["ru"].before
    base, expanded = open_base(bases[name]), open_base(out)
    report = make_report(base, expanded, {"a": texts}, RUSSIAN)
    assert report.unreachable == () and report.total.expanded.whole_words > report.total.base.whole_words
    corpus = read_corpus(base, texts, RUSSIAN)
    plan = make_plan(base, corpus, [5, 10], ModelShape(64, 10**6, True), corpus_words=10**6, profile=RUSSIAN)
    assert [choice.new_tokens for choice in plan.choices] == [0, 5, 10]


def test_messages_name_the_language(smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(EmptyCorpusError, match="holds no Russian word"):
        build_vocab(smollm2, lambda: iter(package_texts()), tmp_path / "out", new_tokens=9, profile=RUSSIAN)
    folder = tmp_path / "ru"
    [piece] = build_vocab(smollm2, texts, folder, new_tokens=1, profile=RUSSIAN).pieces
    tokenizers = (open_base(smollm2), HFTokenizer(folder), open_base(folder))
    with pytest.raises(ExactnessError, match="is not Russian"):
        wrong = [replace(piece, text=" سلام")]
        check_exactness(*tokenizers, wrong, pad=False, documents=[], profile=RUSSIAN)


def test_text_goes_through_the_languages_own_normaliser(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Привет Мир\n", encoding="utf-8")
    assert list(read_texts([str(path)], profile=RUSSIAN)()) == ["привет мир"]
    assert list(read_texts([str(path)], profile=PERSIAN)()) == ["Привет Мир"]
