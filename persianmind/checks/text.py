"""What the text of a recipe is enough for: the vocabulary that is asked of it, and the steps.

On the vocabulary, see vocab/support.py.

On repetition: up to four passes over the same text are about as good as new text, and after sixteen more of
them gain next to nothing (Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", arXiv
2305.16264).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from persianmind.checks.base import CheckContext, CheckResult, Level
from persianmind.checks.language import language_finding
from persianmind.checks.lengths import PROMPT_TOKENS, length_findings
from persianmind.data.read.order import mixture_ratios
from persianmind.language import vocabulary_profile
from persianmind.model.bases import present_base
from persianmind.recipe import Recipe
from persianmind.recipe.train import GOOD_PASSES
from persianmind.text.spec import source_spec
from persianmind.vocab.count import ChunkCounter
from persianmind.vocab.families import open_base, open_files
from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.support import MAX_CHUNKS, vocabulary_support
from persianmind.vocab.text_sample import TextSample, read_sample

# Tokens per word where no tokenizer is at hand: as with 10,000 new pieces (docs/vocabulary.md).
USUAL_FERTILITY = 1.43


def check_text(context: CheckContext) -> Iterator[CheckResult]:
    """Reads some seconds of every source; keeps nothing.

    Raises:
        SourceError: a source cannot be found or read.
    """
    recipe = context.wanted
    profile = vocabulary_profile(recipe)
    folder_of_base = present_base(recipe.base)
    base = None if folder_of_base is None else open_base(folder_of_base)
    vocabulary_names = recipe.vocabulary_sources()
    wanted = dict.fromkeys([*vocabulary_names, *recipe.stage_sources()])
    with tempfile.TemporaryDirectory(prefix="persianmind-doctor-") as folder:
        counter = ChunkCounter(Path(folder), profile.script)
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
        support = vocabulary_support(recipe, base, chunks, read)
        learned = support.learned
        yield CheckResult("vocabulary", Level(support.level), support.detail)
        sampled = [text for one in read for text in one.texts]
        yield language_finding(profile, recipe.normalise, sampled, base, learned)
    trained = [(name, sample) for name, sample in samples.items() if name in recipe.stage_sources()]
    tokenizer = base
    if base is not None and learned is not None and learned.pieces:
        tokenizer = open_files(base.files(learned, pad_token=False))
    fertilities = {name: fertility_of(sample, tokenizer) for name, sample in trained if sample}
    tokens = {name: whole_tokens(sample, fertilities[name]) if sample else None for name, sample in trained}
    yield from repetition_findings(recipe, tokens)
    for name, sample in trained:
        if sample is not None:
            yield from length_findings(recipe, sample, fertilities[name])


def fertility_of(sample: TextSample, tokenizer: BaseTokenizer | None) -> float:
    """Tokens per word of a source; as is usual where no tokenizer is here."""
    if tokenizer is None or not sample.texts:
        return USUAL_FERTILITY
    words = sum(len(text.split()) for text in sample.texts)
    return sum(map(len, tokenizer.encode(sample.texts))) / max(1, words)


def whole_tokens(sample: TextSample, fertility: float) -> int | None:
    """About how many tokens the whole text of a source is; None where its size is not known."""
    if (grown := sample.whole_over_read) is None:
        return None
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
        total = recipe.tokens_of(stage)
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
