"""What a dry run makes in its folder, with a run's own code, on as much text as that takes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.errors import BaseModelError
from persianmind.recipe import Packing, Recipe
from persianmind.run.folder import RunFolder

if TYPE_CHECKING:
    from persianmind.data.read.dataset import TokenDataset
    from persianmind.tokenizer import FolderTokenizer

logger = logging.getLogger(__name__)
# Where reading ends: enough for every statement here, a minute or two on two cores.
VOCABULARY_CHARACTERS = 20_000_000
SOURCE_TOKENS, SOURCE_S = 1_000_000, 15.0
HELD_OUT_CHARACTERS = 5_000
SHARD_SEQUENCES = 64
MEASURED_SEQUENCES = 8


@dataclass(frozen=True, slots=True)
class DryRunSource:
    """One packing as far as it was made. tokens: of all of it, None where not known; is_whole: whether they
    were counted. sequences: packed so far."""

    packing: Packing
    dataset: TokenDataset
    tokens: int | None
    is_whole: bool

    @property
    def sequences(self) -> int:
        """As above."""
        return len(self.dataset)

    @property
    def whole_sequences(self) -> int:
        """Of all of it; where its size is not known, those packed so far."""
        if self.is_whole or self.tokens is None:
            return self.sequences
        return max(self.sequences, -(-self.tokens // self.packing.seq_len))


def shortened(recipe: Recipe) -> Recipe:
    """The recipe with less held-out text and small shards; what is packed, and how, stays the same."""
    heldout = recipe.heldout.model_copy(
        update={"max_characters": min(recipe.heldout.max_characters, HELD_OUT_CHARACTERS)}
    )
    data = recipe.data.model_copy(
        update={"sequences_per_shard": min(recipe.data.sequences_per_shard, SHARD_SEQUENCES)}
    )
    return recipe.model_copy(update={"heldout": heldout, "data": data})


def base_folder(base: str, scratch: Path) -> Path:
    """A folder with the base's configuration and tokenizer: the base itself where it is here.

    Raises:
        BaseModelError: they cannot be had.
    """
    from persianmind.model.bases import present_base, resolve_base
    from persianmind.model.made_bases import CACHE

    if (present := present_base(base)) is not None:
        return present
    if "://" not in base:
        return _small_files(base, scratch / "base")
    before = os.environ.get(CACHE)
    os.environ[CACHE] = str(scratch / "cache")  # made for this once, and removed with the rest
    try:
        return resolve_base(base)
    finally:
        del os.environ[CACHE]
        if before is not None:
            os.environ[CACHE] = before


def _small_files(name: str, folder: Path) -> Path:
    from huggingface_hub import snapshot_download

    logger.info(f"base: {name} is not here; its configuration and tokenizer alone are downloaded for now")
    try:
        snapshot_download(name, allow_patterns=["*.json", "*.jinja", "tokenizer.model"], local_dir=folder)
    except Exception as error:  # of the HTTP library or the hub's
        reason = " ".join(str(error).split())[:200]
        raise BaseModelError(f"base {name!r}: cannot be had from the hub ({reason})") from None
    return folder


def learn_vocabulary(recipe: Recipe, base: Path, out: Path, heldout: Path) -> None:
    """Learned on no more text than is needed.

    Raises:
        VocabError: the text supports fewer pieces.
    """
    from persianmind.language import vocabulary_profile
    from persianmind.text.corpus import training_texts
    from persianmind.text.heldout import held_out_fingerprints
    from persianmind.text.spec import source_specs
    from persianmind.vocab.build import build_vocab

    evaluated = held_out_fingerprints(heldout if recipe.heldout.sources else None)
    specs = source_specs(recipe, recipe.vocabulary_sources())
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for text in training_texts(specs, evaluated):
            read += len(text)
            yield text
            if read >= VOCABULARY_CHARACTERS:
                return

    expansion = build_vocab(
        base,
        texts,
        out,
        new_tokens=recipe.vocab.new_tokens,
        train_size=recipe.vocab.train_size,
        pad_token=recipe.vocab.pad_token,
        profile=vocabulary_profile(recipe),
    )
    part = " (a part: the run reads all)" if read >= VOCABULARY_CHARACTERS else ""
    logger.info(
        f"vocabulary: {expansion.base_vocab:,} + {expansion.added:,} tokens, learned from {read:,} "
        f"characters{part}"
    )
    for language, one in expansion.fertility.items():
        logger.info(f"vocabulary: {language}: {one.before:.2f} tokens per word before, {one.after:.2f} after")


def pack_beginning(
    recipe: Recipe, packing: Packing, vocab: Path, made: RunFolder, heldout: Path
) -> DryRunSource:
    """Packs the beginning of a source, all of it where that is short."""
    from persianmind.data.build.builder import build_steps
    from persianmind.data.build.source import build_fingerprints, source_job
    from persianmind.data.read.incremental import IncrementalDataset
    from persianmind.tokenizer import FolderTokenizer

    tokenizer = FolderTokenizer(vocab)
    out = made.shards(packing.name)
    job = source_job(recipe, packing, tokenizer=vocab, out=out, heldout=heldout)
    steps = build_steps(job)
    try:
        for step in steps:
            if step.shards and (step.tokens >= SOURCE_TOKENS or step.elapsed_s >= SOURCE_S):
                break
    finally:
        steps.close()
    dataset = IncrementalDataset(job.out, build_fingerprints(job, tokenizer))
    is_whole = dataset.num_sequences is not None
    tokens = dataset.manifest.tokens if is_whole else _estimated_tokens(recipe, job.name, dataset, tokenizer)
    return DryRunSource(packing, dataset, tokens, is_whole)


def _estimated_tokens(
    recipe: Recipe, name: str, dataset: TokenDataset, tokenizer: FolderTokenizer
) -> int | None:
    """By the size of the files and the bytes of a token; None where files do not say their size."""
    from persianmind.data.shown import shown_documents
    from persianmind.text.sources.locate import locate

    sizes = [file.size_bytes for file in locate(name, recipe.sources[name])]
    if None in sizes:
        return None
    measured = [
        one
        for index in range(min(MEASURED_SEQUENCES, len(dataset)))
        for one in shown_documents(dataset, index, tokenizer)
    ]
    bytes_per_token = sum(len(one.text.encode("utf-8")) for one in measured) / sum(
        one.tokens for one in measured
    )
    return round(sum(size for size in sizes if size is not None) / bytes_per_token)
