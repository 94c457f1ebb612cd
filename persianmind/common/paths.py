"""Paths that were read from a file stay inside their folder."""

from __future__ import annotations

from pathlib import Path

from persianmind.common.errors import PersianMindError

# The checkout (or the folder that holds the package): where recipes and DeepSpeed's JSON files lie.
PROJECT_ROOT = Path(__file__).resolve().parents[2]


def resolve_inside(root: Path, relative: str) -> Path:
    """Resolves a path named in a file of ours; it must be relative, inside `root`, and no symlink.

    Raises:
        PersianMindError: the path leaves the folder or goes through a symbolic link.
    """
    candidate = Path(relative)
    if candidate.is_absolute() or ".." in candidate.parts or not candidate.parts:
        raise PersianMindError(f"{root}: refuses the path {relative!r}, which is not inside the folder")
    current = root
    for part in candidate.parts:
        current = current / part
        if current.is_symlink():
            raise PersianMindError(f"{root}: refuses {relative!r}, which goes through a symbolic link")
    return current
