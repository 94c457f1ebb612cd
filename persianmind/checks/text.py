"""What the text of a recipe is enough for: the vocabulary that is asked of it, and the steps.

Two rules on the vocabulary. A new piece is a pair of neighbours that occurs at least twice (vocab/learn.py):
a text has only so many. And an embedding moves only where its token occurs; below some 100 occurrences it
stays what it began as (vocab/plan.py).

On repetition: up to four passes over the same text are about as good as new text, and after sixteen more of
them gain next to nothing (Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", arXiv
2305.16264).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from persianmind.checks.base import CheckContext, CheckResult
from persianmind.checks.text_sample import TextSample, read_sample
from persianmind.common.errors import VocabError
from persianmind.data.read.order import mixture_ratios
from persianmind.language import default_profile
from persianmind.model.bases import present_base
from persianmind.recipe import Recipe
from persianmind.recipe.train import GOOD_PASSES
from persianmind.text.spec import source_spec
from persianmind.vocab.count import ChunkCounter
from persianmind.vocab.families import open_base, open_files
from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.learn import Learned, continue_bpe
from persianmind.vocab.pieces import is_valid_piece, learn_like_paper
from persianmind.vocab.plan import MIN_OCCURRENCES

MAX_CHUNKS = 200_000
# Tokens per word where no tokenizer is at hand: Persian with 10,000 new pieces (docs/vocabulary.md).
USUAL_FERTILITY = 1.43
# Around the turns of a dialogue in PersianMind's own form: its first line, names, end of turn.
PROMPT_TOKENS = 30


def check_text(context: CheckContext) -> Iterator[CheckResult]:
    """Reads some seconds of every source; keeps nothing.

    Raises:
        SourceError: a source cannot be found or read.
    """
    recipe = context.wanted
    folder_of_base = present_base(recipe.base)
    base = None if folder_of_base is None else open_base(folder_of_base)
    vocabulary_names = recipe.vocabulary_sources()
    wanted = dict.fromkeys([*vocabulary_names, *recipe.stage_sources()])
    with tempfile.TemporaryDirectory(prefix="persianmind-doctor-") as folder:
        counter = ChunkCounter(Path(folder), default_profile().script.character)
        samples = {
            name: read_sample(
                source_spec(recipe, name), counter.add if name in vocabulary_names else lambda text: None
            )
            for name in wanted
        }
        chunks = counter.most_common(MAX_CHUNKS)
    learned = None
    read = [sample for name in vocabulary_names if (sample := samples[name]) is not None]
    if not (recipe.vocab.new_tokens or recipe.vocab.train_size):
        yield CheckResult.ok("vocabulary", "no new tokens are asked for")
    elif len(read) < len(vocabulary_names):
        yield CheckResult.ok("vocabulary", "not looked at: a source of it lies on the network")
    else:
        finding, learned = vocabulary_finding(recipe, base, chunks, read)
        yield finding
    tokens = {
        name: None if sample is None else whole_tokens(sample, base, learned)
        for name, sample in samples.items()
        if name in recipe.stage_sources()
    }
    yield from repetition_findings(recipe, tokens)


def vocabulary_finding(
    recipe: Recipe, base: BaseTokenizer | None, chunks: Mapping[str, int], read: Iterable[TextSample]
) -> tuple[CheckResult, Learned | None]:
    """Whether the text supports the pieces asked for, and what was learned to find out.

    Args:
        base: None: words are split into characters, which supports a few more pieces.
        chunks: words with how often each occurs.
        read: the samples they come from.
    """
    name = "vocabulary"
    samples = list(read)
    size = sum(one.utf8_bytes for one in samples)
    is_whole = all(one.is_whole for one in samples)
    text = f"{_size(size)} of text{'' if is_whole else ' (a part of it)'}"
    if not chunks:
        language = default_profile().name
        return CheckResult.warn(name, f"{text} hold no {language} word; name vocab.sources"), None
    try:
        learned, asked = _learn(recipe, base, chunks)
    except VocabError as error:
        level = CheckResult.fail if is_whole else CheckResult.warn
        return level(name, f"{text}: {error} (a piece is a pair that occurs at least twice)"), None
    grown = sum(one.utf8_bytes * (one.whole_over_read or 1.0) for one in samples) / max(1, size)
    found = len(learned.pieces)
    trained = sum(count * grown >= MIN_OCCURRENCES for _, count in learned.pieces)
    rule = f"{trained:,} of them occur {MIN_OCCURRENCES} times or more, as an embedding needs to be trained"
    if found < asked and is_whole:
        return (
            CheckResult.fail(
                name,
                f"{text} supports {found:,} new pieces (pairs that occur at least twice) and {asked:,} are "
                f"asked for; {rule}: vocab.new_tokens={trained or found}, or more text",
            ),
            learned,
        )
    if trained < asked:
        return (
            CheckResult.warn(
                name,
                f"{text} supports {found:,} of the {asked:,} pieces asked for, but only {rule}; the others "
                f"stay near their first value: vocab.new_tokens={trained}, or more text",
            ),
            learned,
        )
    return CheckResult.ok(name, f"{text} supports the {asked:,} pieces asked for; {rule}"), learned


def whole_tokens(sample: TextSample, base: BaseTokenizer | None, learned: Learned | None) -> int | None:
    """About how many tokens the whole text of a source is; None where its size is not known."""
    if (grown := sample.whole_over_read) is None:
        return None
    fertility = USUAL_FERTILITY
    if base is not None and sample.texts:
        expanded = open_files(base.files(learned, pad_token=False)) if learned and learned.pieces else base
        words = sum(len(text.split()) for text in sample.texts)
        fertility = sum(map(len, expanded.encode(sample.texts))) / max(1, words)
    around = sample.documents * (PROMPT_TOKENS if sample.is_instruction else 1)
    return max(1, round((sample.words * fertility + around) * grown))


def times_seen(recipe: Recipe, tokens: Mapping[str, int | None]) -> dict[str, float | None]:
    """How often training passes over each source of its stages, added up over the stages.

    Args:
        tokens: of each whole source; None: not known, and so is the result.

    Returns:
        Passes by source.
    """
    passes: dict[str, float | None] = dict.fromkeys(recipe.stage_sources(), 0.0)
    for stage in recipe.stages:
        known = {name: tokens[name] for name in stage.sources}
        temperature = recipe.data.mixture_temperature
        if temperature is not None and None in known.values():
            passes |= dict.fromkeys(known, None)  # the parts of all depend on the sizes of all
            continue
        ratios = mixture_ratios(stage.sources, known, temperature)
        total = stage.tokens
        if stage.passes is not None:
            counted, often = stage.passes
            known_count = known[counted]
            if known_count is not None:
                total = math.ceil(often * known_count / ratios[counted])
        for name, ratio in ratios.items():
            before, own = passes[name], known[name]
            if before is None or own is None or total is None:
                passes[name] = None
            else:
                passes[name] = before + total * ratio / max(1, own)
    return passes


def repetition_findings(recipe: Recipe, tokens: Mapping[str, int | None]) -> Iterator[CheckResult]:
    """One line for each source that is trained on."""
    for name, passes in times_seen(recipe, tokens).items():
        label, own = f"text of {name}", tokens[name]
        if passes is None or own is None:
            yield CheckResult.ok(label, "its size is not known from here")
            continue
        often = f"{passes:.2g}" if passes < 100 else f"{passes:,.0f}"
        text = f"about {own:,} tokens, seen {often} times"
        if passes <= GOOD_PASSES:
            yield CheckResult.ok(label, text)
        else:
            yield CheckResult.warn(
                label,
                f"{text} in all: beyond {GOOD_PASSES} passes repeated text gains little (arXiv 2305.16264); "
                "more text, or fewer tokens in the stages that use it",
            )


def _learn(recipe: Recipe, base: BaseTokenizer | None, chunks: Mapping[str, int]) -> tuple[Learned, int]:
    """The pieces, as many as there are up to those asked for; and how many those are.

    Raises:
        VocabError: the text does not support a BPE of `vocab.train_size`.
    """
    profile, vocab = default_profile(), recipe.vocab
    units = dict(chunks) if base is None else base.units(chunks, profile.script)
    if vocab.train_size is not None and base is not None:
        learned, _ = learn_like_paper(base, units, vocab.train_size, profile)
        return learned, len(learned.pieces)
    asked = vocab.train_size or vocab.new_tokens
    if base is not None:
        words, token_bytes, first_id = base.segment(units), dict(base.token_bytes), base.size
    else:
        alphabet = sorted({character for unit in units for character in unit})
        id_of = {character: token_id for token_id, character in enumerate(alphabet)}
        words = {tuple(id_of[one] for one in unit): count for unit, count in units.items()}
        token_bytes = {token_id: one.encode("utf-8", "surrogatepass") for one, token_id in id_of.items()}
        first_id = len(alphabet)
    learned = continue_bpe(
        words, token_bytes, first_id=first_id, limit=asked, is_valid_piece=partial(is_valid_piece, profile)
    )
    return learned, asked


def _size(utf8_bytes: int) -> str:
    return f"{utf8_bytes / 1e6:.1f} MB" if utf8_bytes >= 1e6 else f"{utf8_bytes / 1e3:.0f} KB"
