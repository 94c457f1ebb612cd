"""What is shipped to the cluster: a copy of the project without what every machine makes or finds itself."""

from __future__ import annotations

import fnmatch
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from persianmind.common.errors import ClusterError

# Names at any depth, with shell wildcards.
EXCLUDES = (
    ".*",
    "__pycache__",
    "*.pyc",
    "*.egg-info",
    "*.safetensors",
    "*.bin",
    "*.gguf",
    "*.log",
)
# Folders directly below the root: further down such a name may be a package of ours.
ROOT_EXCLUDES = ("venv", "runs", "shards", "build", "dist", "tests", "benchmarks", "docs")
MIB = 1 << 20
RAYS_LIMIT_MIB = 100  # Ray keeps packages in the memory of the head


@dataclass(frozen=True, slots=True)
class Package:
    """A staged copy: its folder, how many files and bytes it holds."""

    folder: Path
    files: int
    size_bytes: int


def included_files(root: Path) -> list[Path]:
    """Files below `root` that are shipped, relative to it, sorted. Links are not followed."""
    found = []
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = sorted(
            name for name in names if not is_excluded(name) and not (here == root and name in ROOT_EXCLUDES)
        )
        found += [
            (here / name).relative_to(root)
            for name in sorted(files)
            if not is_excluded(name) and not (here / name).is_symlink()
        ]
    return found


def is_excluded(name: str) -> bool:
    """Whether a file or folder of this name stays at home."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in EXCLUDES)


def check_size(root: Path, limit_mib: float) -> tuple[list[Path], int]:
    """The files to ship and their bytes, looked at before anything is copied or sent.

    Raises:
        ClusterError: they are more than `limit_mib`; the message names the largest.
    """
    files = included_files(root)
    sizes = {path: (root / path).stat().st_size for path in files}
    total = sum(sizes.values())
    if total > limit_mib * MIB:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
        names = ", ".join(f"{path} ({sizes[path] / MIB:.1f} MiB)" for path in largest)
        raise ClusterError(
            f"the working folder {root} is {total / MIB:.1f} MiB without its excludes, the limit is "
            f"{limit_mib:g} MiB; the largest: {names}; move data and models to storage that the nodes share"
        )
    return files, total


def stage(root: Path, into: Path, limit_mib: float = RAYS_LIMIT_MIB) -> Package:
    """Copies what is shipped into the empty folder `into`.

    Raises:
        ClusterError: too large; nothing was copied.
    """
    files, total = check_size(root, limit_mib)
    for path in files:
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, into / path)
    return Package(into, len(files), total)
