"""Whether a recipe fits this machine's GPUs, imitated."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.checks.base import CheckContext, Level
from persianmind.checks.fit import check_fit
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.support.launch import ZERO2


def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: float) -> tuple[Level, str]:
    """Of the tiny recipe on a GPU of so much memory."""
    monkeypatch.setattr("persianmind.checks.fit.has_gpu", lambda: True)
    monkeypatch.setattr("persianmind.checks.fit._gpu_bytes", lambda: int(gib * 2**30))
    recipe = load_recipe("tiny", ["train.precision=bf16"])
    (result,) = check_fit(CheckContext(recipe, ZERO2, RunFolder(tmp_path), 1))
    return result.level, result.detail


def test_a_gpu_with_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    level, detail = found(tmp_path, monkeypatch, 8)
    assert level is Level.OK and "GB of 8.59 GB" in detail


def test_a_gpu_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    level, detail = found(tmp_path, monkeypatch, 0.5)
    assert level is Level.WARN and "it will not fit" in detail


def test_a_gpu_that_torch_cannot_use_is_left_to_the_line_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persianmind.checks.fit.has_gpu", lambda: True)
    (result,) = check_fit(CheckContext(load_recipe("tiny"), ZERO2, RunFolder(tmp_path), 1))
    assert result.level is Level.OK and "the line on the device says why" in result.detail


def test_without_a_gpu_the_planner_is_named(tmp_path: Path) -> None:
    (result,) = check_fit(CheckContext(load_recipe("tiny"), ZERO2, RunFolder(tmp_path), 1))
    assert result.level is Level.OK and "persianmind plan tiny --gpu" in result.detail
