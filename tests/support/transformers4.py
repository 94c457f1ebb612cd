"""The last transformers 4, in a process of its own: what most tools still load an export with.

`make setup` puts it, with the tokenizers and huggingface_hub that it needs, into a folder of this environment
that is on no path; torch and the rest are the environment's own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.support.launch import BIN
from tests.support.python_process import run_python

FOLDER = BIN.parent / "transformers4"
VERSION = "4.57.6"
_PRELUDE = """
import json, sys, transformers
assert transformers.__version__ == {version!r}, transformers.__file__
def answer(**facts):
    print(json.dumps(facts))
"""


def run_in_transformers4(script: str, *args: str | Path, timeout_s: float = 300) -> dict[str, Any]:
    """Runs Python source under transformers 4, offline and without this project on its path.

    The source finds `args` in sys.argv[1:], has `transformers`, `json` and `sys` imported, and ends by
    calling `answer(name=value, ...)` once.

    Returns:
        What it gave to `answer`.

    Raises:
        RuntimeError: transformers 4 is not installed, or the source failed; with its standard error.
    """
    if not (FOLDER / "transformers").is_dir():
        raise RuntimeError(f"{FOLDER} holds no transformers {VERSION}; `make setup` installs it")
    printed = run_python(
        _PRELUDE.format(version=VERSION) + script,
        *args,
        environment={**os.environ, "PYTHONPATH": str(FOLDER), "HF_HUB_OFFLINE": "1"},
        cwd=FOLDER,
        timeout_s=timeout_s,
        where=f"transformers {VERSION}",
    )
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer
