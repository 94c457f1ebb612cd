"""Bytes that a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from persianmind.data.build.shards import token_dtype
from persianmind.estimate.memory import checkpoint_bytes
from persianmind.model.base_files import weight_files
from persianmind.model.known_bases import known_base
from persianmind.recipe import Recipe

SPARE_BYTES = 500_000_000  # for shards, checkpoints and logs, at the least
LOG_BYTES = 100_000_000  # metrics, held-out text, tokenizer, report
EXPORT_BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class DiskBytes:
    """What lies on disk at the end of a run, and while it saves.

    download: of the base; None where it is not known. shards: token shards of the stages whose length the
    recipe states; those in epochs are as long as their text, and not counted. checkpoints: those that are
    kept and the one being written.
    """

    download: int | None
    shards: int
    checkpoints: int
    export: int
    logs: int

    @property
    def run(self) -> int:
        """Of the run folder alone."""
        return self.shards + self.checkpoints + self.export + self.logs


def disk_bytes(recipe: Recipe, *, trained: int, exported: int, vocab_size: int) -> DiskBytes:
    """What a run of this recipe writes.

    Args:
        trained, exported: numbers of weights.
        vocab_size: of the run's tokenizer.
    """
    steps = [recipe.steps_of(stage) or 0 for stage in recipe.stages]
    tokens = sum(n * recipe.tokens_per_step(stage) for n, stage in zip(steps, recipe.stages, strict=True))
    kept = recipe.checkpoint.keep_last + 1
    if recipe.checkpoint.keep_every_steps:
        kept += sum(steps) // recipe.checkpoint.keep_every_steps
    return DiskBytes(
        download=_base_bytes(recipe.base),
        shards=tokens * id_bytes(vocab_size),
        checkpoints=kept * checkpoint_bytes(trained, recipe.train.precision),
        export=exported * EXPORT_BYTES[recipe.export.dtype] if recipe.export.enabled else 0,
        logs=LOG_BYTES,
    )


def id_bytes(vocab_size: int) -> int:
    """Of one token in a shard."""
    return token_dtype(vocab_size)().itemsize


def run_bytes(recipe: Recipe) -> int:
    """A lower bound: the merged export, which is as large as the base, and what is spared for the rest."""
    return SPARE_BYTES + ((_base_bytes(recipe.base) or 0) if recipe.export.enabled else 0)


def _base_bytes(base: str) -> int | None:
    """Of the weight files, here or to be downloaded."""
    folder = Path(base)
    if folder.is_dir():
        return sum(path.stat().st_size for path in weight_files(folder))
    known = known_base(base)
    return None if known is None else known.weight_bytes
