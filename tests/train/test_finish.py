"""The check of an export: it passes on what was exported, and a planted fault is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from persianmind.common.errors import PersianMindError
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.bases import resolve_base
from persianmind.model.export.hf import export_merged
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.train.finish import check_export
from persianmind.vocab.expansion import load_expansion
from tests.support.launch import Launched

pytestmark = pytest.mark.integration


@pytest.fixture
def exported(tiny_run: Launched, tmp_path: Path) -> tuple[Recipe, RunFolder, AdaptedModel]:
    """A model as it is before step 1, exported in fp32 beside the vocabulary and held-out text of a run."""
    recipe = load_recipe("tiny")
    folder = RunFolder(tmp_path / "run")
    for part in ("vocab", "heldout"):
        shutil.copytree(tiny_run.run / part, folder.path / part)
    base = resolve_base(recipe.base)
    expansion = load_expansion(folder.vocab)
    pieces = [piece.base_ids for piece in expansion.pieces]
    model = build_adapted(base, recipe, pieces, expansion.base_vocab)
    export_merged(model, base, folder.vocab, folder.export, dtype="float32")
    return recipe, folder, model


def test_what_was_exported_is_the_trained_model(exported: tuple[Recipe, RunFolder, AdaptedModel]) -> None:
    result = check_export(*exported)
    assert result.relative_loss_difference < 1e-6 <= result.tolerance == 1e-4


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "lm_head.weight"])
def test_a_weight_that_went_wrong_is_refused(
    exported: tuple[Recipe, RunFolder, AdaptedModel], name: str
) -> None:
    recipe, folder, model = exported
    path = folder.export / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(PersianMindError, match="does not match the trained model"):
        check_export(recipe, folder, model)
