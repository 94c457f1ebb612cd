"""`persianmind verify`: any flipped byte of a run, an export, a checkpoint or a data folder is noticed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from persianmind.cli import app
from persianmind.common.errors import PersianMindError
from persianmind.publish.verify import verify_path
from persianmind.recipe.loading import load_recipe, write_run_recipe
from tests.support.launch import Launched

pytestmark = pytest.mark.integration


@pytest.fixture
def run(tiny_run: Launched, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run.run, tmp_path / "run")
    return tmp_path / "run"


def problems(path: Path) -> list[str]:
    return [problem for verdict in verify_path(path) for problem in verdict.problems]


def flip(path: Path, seed: int) -> None:
    raw = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(len(raw))
    raw[place] ^= 1 << (seed % 8)
    path.write_bytes(raw)


def test_a_run_as_it_was_written(run: Path) -> None:
    verdicts = verify_path(run)
    assert not [one for one in verdicts if one.problems]
    kinds = {one.what for one in verdicts}
    assert kinds >= {
        "recipe",
        "results",
        "records",
        "vocabulary",
        "held-out text",
        "export",
        "checkpoint",
        "data",
    }
    done = CliRunner().invoke(app, ["verify", str(run)])
    assert done.exit_code == 0 and "0 damaged" in done.output


def test_every_file_of_an_export(run: Path) -> None:
    files = sorted(path for path in (run / "export").rglob("*") if path.is_file())
    assert len(files) >= 7
    for seed, path in enumerate(files):
        before = path.read_bytes()
        flip(path, seed)
        assert CliRunner().invoke(app, ["verify", str(run / "export")]).exit_code != 0, path
        path.write_bytes(before)
    assert not problems(run / "export")


def test_what_is_missing_and_what_is_foreign(run: Path) -> None:
    (run / "export" / "config.json").rename(run / "export" / "extra.json")
    found = problems(run / "export")
    assert any("config.json is missing" in one for one in found)
    assert any("extra.json is not in the manifest" in one for one in found)


@pytest.mark.parametrize(
    "pattern",
    [
        "checkpoints/step-*/**/*.pt",
        "data/*/shard*",
        "vocab/tokenizer.json",
        "heldout/*.jsonl",
        "metrics.jsonl",
        "results.json",
        "energy/*.jsonl",
        "prepared.json",
        "engine.json",
    ],
)
def test_a_flip_anywhere_in_a_run(run: Path, pattern: str) -> None:
    path = next(path for path in sorted(run.glob(pattern)) if path.stat().st_size)
    flip(path, len(pattern))
    assert problems(run), path


def test_another_recipe_is_noticed(run: Path) -> None:
    write_run_recipe(run / "recipe.yaml", load_recipe("tiny", ["seed=17"]))
    assert any("is not the recipe" in one for one in problems(run))


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PersianMindError, match="no whole export, checkpoint, run"):
        verify_path(tmp_path)
