"""What every test sees: no network, CPU ranks, and one finished tiny run to look at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from persianmind.engine.deepspeed.kernel import extensions_folder
from tests.launching import Launched, launch

# One build of DeepSpeed's CPU kernel for the whole suite, the one that runs use too.
os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder()))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """The tiny recipe, uninterrupted, on two ranks through the real DeepSpeed launcher. Read only."""
    run = tmp_path_factory.mktemp("tiny") / "run"
    launched = launch("--recipe", "tiny", "--output", str(run), ranks=2)
    assert launched.code == 0, launched.text
    return launched


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that anything written by mistake is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long fault runs are for `make faults`, `-m long` or PERSIANMIND_LONG_TESTS=1."""
    if "long" in config.option.markexpr or os.environ.get("PERSIANMIND_LONG_TESTS") == "1":
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long fault run; PERSIANMIND_LONG_TESTS=1 runs it"))
