from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from persianmind.publish.card import write_card
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.records import RunResults
from tests.energy.ledgers import sample, write
from tests.publish.helpers import Write, tiny
from tests.support.exports import hand_made_export


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "secret-place" / "base"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose ledger counted one GPU on a node of a private name."""
    write(tmp_path / "run", "my-host", [sample("1", "my-host", "pretrain", (1, 2), {"gpu0": 3.6e6})])
    return RunFolder(tmp_path / "run")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hand_made_export(tmp_path_factory.mktemp("card") / "export")


@pytest.fixture
def uncounted(tmp_path: Path) -> RunFolder:
    """A run that counted no energy."""
    (tmp_path / "uncounted").mkdir()
    (tmp_path / "uncounted" / "metrics.jsonl").touch()
    return RunFolder(tmp_path / "uncounted")


@pytest.fixture
def written(run: RunFolder, base: Path, export: Path) -> Write:
    """Writes a card and loads it with the Hub's library."""

    def write_it(recipe: Recipe | None = None, results: RunResults | None = None, **more: Any) -> Any:
        path = write_card(recipe or tiny(), run, export, results or RunResults(), base=base, **more)
        assert path == export / "README.md"
        card = ModelCard.load(path)
        assert str(card) == path.read_text(encoding="utf-8")
        return card, card.text

    return write_it
