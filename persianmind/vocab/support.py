"""What a text is enough for: how many of the pieces that a recipe asks for it supports.

A new piece is a pair of neighbours that occurs at least twice (vocab/learn.py): a text has only so many. And
an embedding moves only where its token occurs; below some 100 occurrences it stays what it began as
(vocab/plan.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from persianmind.common.errors import VocabError
from persianmind.language import LanguageProfile, vocabulary_profile
from persianmind.recipe import Recipe
from persianmind.text.spec import source_spec
from persianmind.vocab.count import ChunkCounter
from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.learn import Learned, continue_bpe
from persianmind.vocab.pieces import is_valid_piece, learn_like_paper, learn_up_to
from persianmind.vocab.plan import MIN_OCCURRENCES
from persianmind.vocab.text_sample import TextSample, read_sample

MAX_CHUNKS = 200_000
PLAN_CHARACTERS, PLAN_WORK_S = 1_000_000, 2.0


@dataclass(frozen=True, slots=True)
class TextSupport:
    """level: fail where all of the text was read and does not support the pieces asked for; warn where a part
    of it does not, or many would be too rare to be trained. detail: in words, with the fix. learned: what was
    learned to find out; None where nothing could be."""

    level: Literal["ok", "warn", "fail"]
    detail: str
    learned: Learned | None = None


def vocabulary_support(
    recipe: Recipe, base: BaseTokenizer | None, chunks: Mapping[str, int], samples: Sequence[TextSample]
) -> TextSupport:
    """Whether the text supports the pieces asked for.

    Args:
        base: None: words are split into characters, which supports a few more pieces.
        chunks: words with how often each occurs.
        samples: what they come from.
    """
    profile = vocabulary_profile(recipe)
    size = sum(one.utf8_bytes for one in samples)
    is_whole = all(one.is_whole for one in samples)
    text = f"{_size(size)} of text{'' if is_whole else ' (a part of it)'}"
    lacking: Literal["fail", "warn"] = "fail" if is_whole else "warn"
    if not chunks:
        what = f"no {profile.name} word in it"
        if "A-Z" in profile.script.shared:
            what = f"no {profile.name} letter outside ASCII in it, and no piece is added without one"
        return TextSupport(lacking, f"{text}: {what}; {_fix(recipe)}")
    try:
        learned, asked = _learn(recipe, profile, base, chunks)
    except VocabError as error:
        return TextSupport(lacking, f"{text}: {error} (a piece is a pair that occurs at least twice)")
    found = len(learned.pieces)
    if not found:
        detail = (
            f"{text} supports no new {profile.name} piece: the base has what its words are made of, or no "
            "pair of pieces occurs twice; give more text, or vocab.new_tokens=0"
        )
        return TextSupport(lacking, detail)
    grown = sum(one.utf8_bytes * (one.whole_over_read or 1.0) for one in samples) / max(1, size)
    trained = sum(count * grown >= MIN_OCCURRENCES for _, count in learned.pieces)
    rule = f"{trained:,} of them occur {MIN_OCCURRENCES} times or more, as an embedding needs to be trained"
    level: Literal["ok", "warn", "fail"] = "ok"
    detail = f"{text} supports the {asked:,} pieces asked for; {rule}"
    if found < asked and is_whole:
        level = "fail"
        detail = (
            f"{text} supports {found:,} new pieces (pairs that occur at least twice) and {asked:,} are "
            f"asked for; {rule}: vocab.new_tokens={trained or found}, or more text"
        )
    elif trained < asked:
        level = "warn"
        detail = (
            f"{text} supports {found:,} of the {asked:,} pieces asked for, but only {rule}; the others "
            f"stay near their first value: vocab.new_tokens={trained}, or more text"
        )
    return TextSupport(level, detail, learned)


def read_support(recipe: Recipe, base: BaseTokenizer | None) -> TextSupport | None:
    """The same from a quick look at the sources of the vocabulary; None where no pieces are asked for, or one
    of these sources lies on the network.

    Raises:
        SourceError: a source cannot be found or read.
    """
    if not (recipe.vocab.new_tokens or recipe.vocab.train_size):
        return None
    with tempfile.TemporaryDirectory(prefix="persianmind-plan-") as folder:
        counter = ChunkCounter(Path(folder), vocabulary_profile(recipe).script)
        samples = []
        for name in recipe.vocabulary_sources():
            spec = source_spec(recipe, name)
            sample = read_sample(spec, counter.add, max_characters=PLAN_CHARACTERS, max_work_s=PLAN_WORK_S)
            if sample is None:
                return None
            samples.append(sample)
        return vocabulary_support(recipe, base, counter.most_common(MAX_CHUNKS), samples)


def _learn(
    recipe: Recipe, profile: LanguageProfile, base: BaseTokenizer | None, chunks: Mapping[str, int]
) -> tuple[Learned, int]:
    """The pieces, as many as there are up to those asked for; and how many those are.

    Raises:
        VocabError: the text does not support a BPE of `vocab.train_size`.
    """
    vocab = recipe.vocab
    units = dict(chunks) if base is None else base.units(chunks, profile.script)
    if vocab.train_size is not None and base is not None:
        learned, _ = learn_like_paper(base, units, vocab.train_size, profile)
        return learned, len(learned.pieces)
    asked = vocab.train_size or vocab.new_tokens
    if base is not None:
        return learn_up_to(base, units, asked, profile), asked
    alphabet = sorted({character for unit in units for character in unit})
    id_of = {character: token_id for token_id, character in enumerate(alphabet)}
    learned = continue_bpe(
        {tuple(id_of[one] for one in unit): count for unit, count in units.items()},
        {token_id: one.encode("utf-8", "surrogatepass") for one, token_id in id_of.items()},
        first_id=len(alphabet),
        limit=asked,
        is_valid_piece=partial(is_valid_piece, profile),
    )
    return learned, asked


def _fix(recipe: Recipe) -> str:
    """What to do about text without a word of its language."""
    sources = recipe.vocabulary_sources()
    named = ", ".join(f"sources.{name}.language={recipe.sources[name].target}" for name in sources)
    return f"name vocab.sources, or the language that it is in (now {named})"


def _size(utf8_bytes: int) -> str:
    return f"{utf8_bytes / 1e6:.1f} MB" if utf8_bytes >= 1e6 else f"{utf8_bytes / 1e3:.0f} KB"
