"""The PEFT folder against plain peft on the resized base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from persianmind.model.adapted import build_adapted
from persianmind.model.export.adapter import write_adapter
from persianmind.model.export.trained import TrainedWeights
from tests.model.family_cases import make_family_base
from tests.model.helpers import (
    BASE_VOCAB,
    PIECES,
    logits_of,
    make_base,
    make_recipe,
    packed_batch,
    perturbed,
)

VOCAB = BASE_VOCAB + len(PIECES)
ALL = {"vocab": {"train_embeddings": "all"}}


def load(base: Path, folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(VOCAB, mean_resizing=False)
    return PeftModel.from_pretrained(model, folder).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("architecture", "sections"),
    [
        ("llama", {}),
        ("llama", {"adapter": {"dora": True}}),
        ("llama", {"adapter": {"rslora": True}}),
        ("llama", {"adapter": {"layers": [-1]}}),
        ("gpt_neox", {"adapter": {"layers": ["0-0"]}}),
        ("llama", ALL),
        ("qwen2", {}),
        ("gpt_neox", {}),
        ("gpt_neox", ALL),
    ],
)
def test_plain_peft_gives_the_trained_logits(
    tmp_path: Path, architecture: str, tied: bool, sections: dict[str, Any]
) -> None:
    base = make_base(tmp_path / "base", architecture, tied=tied)
    recipe = make_recipe(**sections)
    model = perturbed(build_adapted(base, recipe, PIECES, BASE_VOCAB)).eval()
    weights = TrainedWeights.of(model, recipe.adapter)
    whole_bytes = write_adapter(tmp_path, base, weights, base_name="owner/name")
    assert (whole_bytes > 0) == (sections is ALL)
    ids = packed_batch(vocab=VOCAB)["input_ids"]
    with torch.no_grad():
        ours, theirs = logits_of(model, ids), load(base, tmp_path)(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=2e-5 * float(ours.abs().max()))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/name"
    layers = {"[-1]": [1], "['0-0']": [0], "None": None}[str(recipe.adapter.layers)]
    assert config["layers_to_transform"] == layers
    assert (config["modules_to_save"] is None) == (sections is not ALL)
    assert (tmp_path / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("sections", [{}, ALL])
def test_a_bias_of_the_head_is_kept(tmp_path: Path, sections: dict[str, Any]) -> None:
    """Of new tokens it is the mean of the base's, which transformers' resizing does not give here."""
    base = make_family_base(tmp_path / "base", "phi")
    recipe = make_recipe(**sections)
    model = perturbed(build_adapted(base, recipe, PIECES, BASE_VOCAB)).eval()
    write_adapter(tmp_path, base, TrainedWeights.of(model, recipe.adapter), base_name=None)
    ids = packed_batch(vocab=VOCAB)["input_ids"]
    with torch.no_grad():
        ours, theirs = logits_of(model, ids), load(base, tmp_path)(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=2e-5 * float(ours.abs().max()))


def test_scale(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    recipe = make_recipe()
    model = perturbed(build_adapted(base, recipe, PIECES, BASE_VOCAB)).eval()
    write_adapter(tmp_path, base, TrainedWeights.of(model, recipe.adapter), base_name=None, scale=0.5)
    for module in model.causal_lm.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", 0.5)
    ids = packed_batch(vocab=VOCAB)["input_ids"]
    with torch.no_grad():
        ours, theirs = logits_of(model, ids), load(base, tmp_path)(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=2e-5 * float(ours.abs().max()))
