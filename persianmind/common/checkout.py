"""Which commit of this project runs, where it runs from a checkout."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

TIMEOUT_S = 10.0


@cache
def source_commit(root: Path = Path(__file__).resolve().parents[2]) -> str:
    """The commit of the checkout at `root`, "+" behind it where files differ from it; "" for an installed
    package, or where git cannot be asked."""
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        return f"{commit}+" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    ).stdout
