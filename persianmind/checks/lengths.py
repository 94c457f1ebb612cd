"""Whether instruction records fit the sequences they are packed in: longer ones are set aside, never cut."""

from __future__ import annotations

from collections.abc import Iterator

from persianmind.checks.base import CheckResult
from persianmind.recipe import Recipe
from persianmind.vocab.text_sample import TextSample

# Around the turns of a dialogue in PersianMind's own form: its first line, names, end of turn.
PROMPT_TOKENS = 30
# Of the records read: from where on so many are set aside that it is worth a line.
MANY = 0.1
# Lengths are estimated from words: so much over, no record is taken for too long by mistake.
SURELY = 1.1


def length_findings(recipe: Recipe, sample: TextSample, fertility: float) -> Iterator[CheckResult]:
    """A line for each length at which many records of a source would be set aside.

    Args:
        fertility: tokens per word.
    """
    if not (sample.is_instruction and sample.document_words):
        return
    read = sample.documents
    lengths = [words * fertility + PROMPT_TOKENS for words in sample.document_words]
    for packing in recipe.packings_of(sample.name):
        over = sum(length > packing.seq_len for length in lengths)
        if over < MANY * read:
            continue
        keys = ", ".join(key for key, seq_len in recipe.seq_len_keys().items() if seq_len == packing.seq_len)
        label = f"length of {packing.name}"
        longer = f"longer than {packing.seq_len} tokens and would be set aside; raise {keys}"
        if min(lengths) > SURELY * packing.seq_len:
            yield CheckResult.fail(label, f"all {read:,} records read are {longer}")
        else:
            yield CheckResult.warn(label, f"about {over / read:.0%} of {read:,} records read are {longer}")
