"""Packing, token shards and their order."""

from __future__ import annotations

from typing import Literal

from persianmind.recipe.section import Count, Positive, Ratio, Section, SequenceLength


class Data(Section):
    """Packing, token shards and their order.

    `seq_len`: tokens of a packed sequence, of every stage that has none of its own.
    `mixture_temperature` T: the ratio of a source goes with weight x sequences^(1/T); null: with the weights
    alone. `shuffle_block_sequences`: sequences are shuffled within blocks of this size, in the order of the
    source, which lets training start on whole blocks while the rest is built; null: over the whole source,
    which is then built before step 1. `open_sequences`: how many sequences packing keeps open.
    `max_bad_record_ratio`: a build with more bad records stops. `max_damaged_file_ratio`: the same for files
    whose rest cannot be read, of their number and of their bytes. `fast_tokenizer`: use gigatoken where it is
    installed and gives exactly the ids of the saved tokenizer.
    """

    seq_len: SequenceLength = 2048
    sequences_per_shard: Count = 4096
    open_sequences: Count = 64
    max_bad_record_ratio: Ratio = 0.05
    max_damaged_file_ratio: Ratio = 0.05
    mixture_window: Count = 100
    mixture_temperature: Positive | None = None
    shuffle_block_sequences: Count | None = 65_536
    fast_tokenizer: bool = True
    prompt: Literal["persianmind", "chat_template"] = "persianmind"
