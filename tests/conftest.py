"""What every test sees: no network, CPU ranks, and one finished tiny run to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Children (workers of tests, launchers) import this checkout, whatever their working folder is.
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from persianmind.engine.deepspeed.kernel import extensions_folder
from tests.support.launch import Launched, launch
from tests.support.log import reset_logging

# One build of DeepSpeed's CPU kernel for the whole suite, the one that runs use too.
os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder()))


# A busy machine must not fail a test; what takes too long fails its folder's budget.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

SHARED_FOLDERS = {"tests/vocab"}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """The tiny recipe, uninterrupted, on two ranks through the real DeepSpeed launcher. Read only."""
    run = tmp_path_factory.mktemp("tiny") / "run"
    launched = launch("--recipe", "tiny", "--output", str(run), ranks=2)
    assert launched.code == 0, launched.text
    return launched


@pytest.fixture(autouse=True)
def _fresh_logging() -> Iterator[None]:
    """A test that configured logging, as entry points do, takes nothing from the tests after it."""
    yield
    reset_logging()


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that anything written by mistake is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long fault runs are for `make faults`, `-m long` or PERSIANMIND_LONG_TESTS=1.

    Side by side, the tests of one file share a worker; so do those of a folder with costly session fixtures.
    """
    for item in items:
        folder, _, file = item.nodeid.partition("::")[0].rpartition("/")
        item.add_marker(pytest.mark.xdist_group(folder if folder in SHARED_FOLDERS else f"{folder}/{file}"))
    if "long" in config.option.markexpr or os.environ.get("PERSIANMIND_LONG_TESTS") == "1":
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long fault run; PERSIANMIND_LONG_TESTS=1 runs it"))
