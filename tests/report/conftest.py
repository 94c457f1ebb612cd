from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.launch import Launched


@pytest.fixture(scope="session")
def light_run(tiny_run: Launched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished tiny run without its weights, which the page does not read. Read only."""
    copy = tmp_path_factory.mktemp("report") / "tiny-run"
    weights = shutil.ignore_patterns("*.safetensors", "*.pt", "*.bin", "tensorboard")
    shutil.copytree(tiny_run.run, copy, ignore=weights)
    return copy


@pytest.fixture
def real_run(light_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished tiny run that a test may damage."""
    return Path(shutil.copytree(light_run, tmp_path / "run"))
