"""The checkpoints of real ZeRO-2 engines, made once a session (about half a minute)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def zero_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder <precision>/<name>/ of checkpoint stores; zero_worker.py says what each is."""
    out = tmp_path_factory.mktemp("zero")
    worker = Path(__file__).with_name("zero_worker.py")
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, str(worker), str(out)], env=environment, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out
