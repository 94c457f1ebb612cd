"""Python source in a process of its own, with another set of packages than the tests have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def run_python(
    source: str, *args: str | Path, environment: Mapping[str, str], cwd: Path, timeout_s: float, where: str
) -> str:
    """Runs it.

    Args:
        where: what it runs under, for the error.

    Returns:
        What it printed.

    Raises:
        RuntimeError: it failed; with the end of its standard error.
    """
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, args)],
        env=dict(environment),
        cwd=cwd,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"under {where}: {done.stderr[-4000:]}")
    return done.stdout
