"""Bytes that a run writes."""

from __future__ import annotations

from pathlib import Path

from persianmind.model.bases import weight_files
from persianmind.recipe import Recipe

SPARE_BYTES = 500_000_000  # for shards, checkpoints and logs, at the least


def run_bytes(recipe: Recipe) -> int:
    """A lower bound: the merged export, which is as large as the base, and what is spared for the rest."""
    folder = Path(recipe.base)
    base_bytes = sum(path.stat().st_size for path in weight_files(folder)) if folder.is_dir() else 0
    return SPARE_BYTES + (base_bytes if recipe.export.enabled else 0)
