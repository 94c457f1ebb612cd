"""Triton on a machine without a GPU, in a process of its own: its interpreter, or its compiler alone.

torch for CPUs comes without triton. `make setup` puts the version that torch's own wheel for GPUs names into
a folder of this environment that is on no path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.launch import BIN

FOLDER = BIN.parent / "triton"
VERSION = "3.7.1"
ROOT = Path(__file__).parents[2]


def run_with_triton(script: str, cache: Path, *, interpreted: bool, timeout_s: float = 500) -> str:
    """Runs Python source with triton and this project on its path.

    Args:
        cache: a folder for what the compiler makes.
        interpreted: kernels run on the CPU; else they can only be compiled.

    Returns:
        What it printed.

    Raises:
        RuntimeError: triton is not installed, or the source failed; with its standard error.
    """
    if not (FOLDER / "triton").is_dir():
        raise RuntimeError(f"{FOLDER} holds no triton {VERSION}; `make setup` installs it")
    environment = {**os.environ, "PYTHONPATH": f"{FOLDER}:{ROOT}", "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", f"import triton\nassert triton.__version__ == {VERSION!r}\n{script}"],
        env=environment | ({"TRITON_INTERPRET": "1"} if interpreted else {}),
        cwd=cache,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"under triton {VERSION}: {done.stderr[-4000:]}")
    return done.stdout
