"""Triton on a machine without a GPU, in a process of its own: its interpreter, or its compiler alone.

torch for CPUs comes without triton. `make setup` puts the version that torch's own wheel for GPUs names into
a folder of this environment that is on no path.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.launch import BIN
from tests.support.python_process import run_python

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
    return run_python(
        f"import triton\nassert triton.__version__ == {VERSION!r}\n{script}",
        environment=environment | ({"TRITON_INTERPRET": "1"} if interpreted else {}),
        cwd=cache,
        timeout_s=timeout_s,
        where=f"triton {VERSION}",
    )
