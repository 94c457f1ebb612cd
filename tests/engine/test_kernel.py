"""A build killed half-way must not hang every later run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launch import ROOT

LOAD = "from persianmind.engine.deepspeed.kernel import load_cpu_kernel; load_cpu_kernel(); print('loaded')"
CONTROL = (
    "from deepspeed.accelerator import get_accelerator as a\n"
    "a().create_op_builder('ShareMemCommBuilder').load(); print('loaded')"
)


def _run(code: str, folder: Path, timeout_s: float) -> str:
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(folder), "DS_ACCELERATOR": "cpu"}
    scripts = str(Path(sys.executable).parent)
    environment["PATH"] = f"{scripts}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=True
    )
    return done.stdout


@pytest.mark.integration
def test_a_leftover_lock_is_cleared(tmp_path: Path) -> None:
    from persianmind.engine.deepspeed.kernel import extensions_folder

    assert "loaded" in _run(LOAD, extensions_folder(), 400)  # builds, if no run has done so yet
    shutil.copytree(extensions_folder(), tmp_path, dirs_exist_ok=True)
    (tmp_path / "deepspeed_shm_comm" / "lock").touch()
    assert "loaded" in _run(LOAD, tmp_path, 120)
    (tmp_path / "deepspeed_shm_comm" / "lock").touch()
    with pytest.raises(subprocess.TimeoutExpired):  # control: torch alone waits without end
        _run(CONTROL, tmp_path, 12)
