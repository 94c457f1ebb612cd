"""Paths that were read from a file stay inside their folder."""

from __future__ import annotations

from pathlib import Path

from persianmind.common.errors import PersianMindError

# The checkout, or the folder that holds the installed package.
PROJECT_ROOT = Path(__file__).resolve().parents[2]
# Where setup.py puts in a wheel what lies beside the package in the tree.
_SHIPPED = PROJECT_ROOT / "persianmind" / "shipped"


def shipped_folder(in_wheel: str, in_tree: str) -> Path:
    """A folder of files that come with the package, in a wheel or in a checkout."""
    packed = _SHIPPED / in_wheel
    return packed if packed.is_dir() else PROJECT_ROOT / in_tree


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
