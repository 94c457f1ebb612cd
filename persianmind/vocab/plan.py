"""How many new pieces pay: fertility against parameters, memory and compute, size by size.

One training gives every size, because the first k pieces of a longer training are those of a shorter one.

Cost of a step over text, relative to the base: tokens(k) / tokens(0) x flops(k) / flops(0), with 2 flops per
parameter and token for each matmul in the forward pass; the input table is a look-up and costs none. The
ratio is the same for training (forward, backward, recomputation all scale alike).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persianmind.common.errors import VocabError
from persianmind.language import LanguageProfile
from persianmind.vocab.build import Corpus
from persianmind.vocab.families import open_files
from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.learn import Learned
from persianmind.vocab.pieces import learn_up_to, too_few_pieces

_GIB = 2**30
# An embedding moves only when its token occurs; the mean of its old subwords is a start, not training.
MIN_OCCURRENCES = 100
# bf16 weight and gradient, fp32 master and two Adam moments.
_TRAINED_BYTES, _FROZEN_BYTES = 16, 2


@dataclass(frozen=True)
class ModelShape:
    """What the arithmetic needs of the model; `body_parameters`: everything but the vocabulary tables."""

    hidden: int
    body_parameters: int
    tied: bool


LLAMA_2_7B = ModelShape(4_096, 6_738_415_616 - 2 * 32_000 * 4_096, tied=False)


@dataclass(frozen=True)
class Choice:
    """One size.

    embeddings_gib: weights, gradients and optimizer state of the new embeddings on one GPU (ZeRO-2 divides
    the optimizer's part by the ranks). logits_ratio: the output table's part of the model's matmuls.
    relative_cost: compute to read the same text, base = 1. rarest_piece: how often the last piece occurs in
    the corpus, at most: an embedding seen rarely stays untrained.
    """

    new_tokens: int
    tokens_per_word: float
    corpus_tokens: int
    tokens_saved: float
    added_parameters: int
    embeddings_gib: float
    optimizer_gib: float
    logits_ratio: float
    relative_cost: float
    rarest_piece: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """All sizes, 0 first. `best`: the one with the least compute among those that fit and whose rarest piece
    occurs MIN_OCCURRENCES times in the corpus. too_large: sizes that are not among them, because the text
    supports `supported` pieces alone; None where it supports as many as were asked for."""

    choices: tuple[Choice, ...]
    best: int
    too_large: tuple[int, ...] = ()
    supported: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_shape(folder: Path) -> ModelShape | None:
    """The shape from a Llama-family config.json beside the tokenizer, or None when there is none.

    Raises:
        VocabError: a config.json that lacks a size.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        d, layers, wide = (int(config[k]) for k in ("hidden_size", "num_hidden_layers", "intermediate_size"))
        heads = int(config["num_attention_heads"])
    except (KeyError, TypeError, ValueError) as error:
        raise VocabError(
            f"{path} does not give the model's shape ({error}); give --hidden and --parameters"
        ) from None
    kv_width = d * int(config.get("num_key_value_heads") or heads) // heads
    body = layers * (2 * d * d + 2 * d * kv_width + 3 * d * wide + 2 * d) + d
    return ModelShape(d, body, bool(config.get("tie_word_embeddings", False)))


def make_plan(
    base: BaseTokenizer,
    corpus: Corpus,
    sizes: Sequence[int],
    shape: ModelShape,
    *,
    corpus_words: int,
    ranks: int = 1,
    gpu_gib: float = 24.0,
    profile: LanguageProfile,
) -> Plan:
    """Measures every size on the corpus sample and does the arithmetic.

    Args:
        base: the tokenizer to expand.
        corpus: what `read_corpus` gave.
        sizes: numbers of new pieces.
        shape: of the model.
        corpus_words: words of the text to be trained on; `corpus_tokens` is that times the fertility.
        ranks: GPUs that share the optimizer state.
        gpu_gib: memory of one GPU; a size `fits` when frozen weights and new embeddings take at most 80% of
            it (activations come on top: `persianmind plan` estimates them).
        profile: the language of the new pieces.

    Raises:
        VocabError: sizes that are not positive, or all of them more than the text supports.
    """
    check_sizes(sizes)
    learned = learn_up_to(base, corpus.units, max(sizes), profile)
    supported = len(learned.pieces)
    if min(sizes) > supported:
        raise too_few_pieces(supported, min(sizes), profile)
    words = sum(len(document.split()) for document in corpus.documents)
    choices: list[Choice] = []
    for size in [0, *sorted({size for size in sizes if size <= supported})]:
        tokens = _count_tokens(base, prefix(learned, size), corpus.documents) / max(1, words)
        before = choices[0].tokens_per_word if choices else tokens
        count = learned.pieces[size - 1][1] * corpus_words // max(1, corpus.words) if size else 0
        choices.append(_choice(size, tokens, before, base.size, shape, corpus_words, ranks, gpu_gib, count))
    fitting = [c for c in choices if c.fits and c.rarest_piece >= MIN_OCCURRENCES] or choices[:1]
    too_large = tuple(sorted({size for size in sizes if size > supported}))
    best = min(fitting, key=lambda choice: choice.relative_cost).new_tokens
    return Plan(tuple(choices), best, too_large, supported if too_large else None)


def check_sizes(sizes: Sequence[int]) -> None:
    """Raises VocabError for sizes that are not positive."""
    if not sizes or min(sizes) < 1:
        raise VocabError("--sizes must be whole numbers above 0, e.g. 2000,5000,10000")


def prefix(learned: Learned, size: int) -> Learned:
    """The training with `limit=size`: the first pieces and the merges among them and the base."""
    end = learned.first_id + size
    merges = tuple(merge for merge in learned.merges if max(merge) < end)
    return Learned(learned.first_id, learned.pieces[:size], merges)


def _count_tokens(base: BaseTokenizer, learned: Learned, documents: Sequence[str]) -> int:
    expanded = open_files(base.files(learned, pad_token=False)) if learned.pieces else base
    return sum(map(len, expanded.encode(documents)))


def _choice(
    size: int,
    fertility: float,
    fertility_base: float,
    base_vocab: int,
    shape: ModelShape,
    corpus_words: int,
    ranks: int,
    gpu_gib: float,
    rarest_piece: int,
) -> Choice:
    tables = 1 if shape.tied else 2
    added = size * shape.hidden * tables
    logits, logits_base = (base_vocab + size) * shape.hidden, base_vocab * shape.hidden
    optimizer_bytes = 12 * added / ranks
    embedding_bytes = (_TRAINED_BYTES - 12) * added + optimizer_bytes
    frozen_bytes = _FROZEN_BYTES * (shape.body_parameters + logits_base * tables)
    compute = (shape.body_parameters + logits) / (shape.body_parameters + logits_base)
    return Choice(
        new_tokens=size,
        tokens_per_word=round(fertility, 4),
        corpus_tokens=round(corpus_words * fertility),
        tokens_saved=round(1 - fertility / fertility_base, 4) if fertility_base else 0.0,
        added_parameters=added,
        embeddings_gib=round(embedding_bytes / _GIB, 3),
        optimizer_gib=round(optimizer_bytes / _GIB, 3),
        logits_ratio=round(logits / (shape.body_parameters + logits), 4),
        relative_cost=round(compute * fertility / fertility_base, 4) if fertility_base else 1.0,
        rarest_piece=rarest_piece,
        fits=frozen_bytes + embedding_bytes <= 0.8 * gpu_gib * _GIB,
    )
