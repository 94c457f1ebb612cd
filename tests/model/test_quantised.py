"""QLoRA: a 4-bit frozen base, adapters and new embeddings over it, trained by the real engine on this
machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import pytest
import torch

from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.ranks import Ranks
from persianmind.estimate.flops import weight_count
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from tests.model.helpers import BASE_VOCAB, PIECES, make_base, make_recipe, packed_batch
from tests.support.launch import ROOT

RANKS = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)
VOCAB = BASE_VOCAB + len(PIECES)


def _recipe(quantize: str = "nf4") -> Recipe:
    return make_recipe(train={"precision": "fp32", "quantize": quantize})


def _quantised(model: AdaptedModel) -> dict[str, torch.Tensor]:
    return {
        name: value
        for name, value in model.named_parameters()
        if isinstance(value, bitsandbytes.nn.Params4bit)
    }


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2"])
def test_projections_are_packed_and_tables_are_not(tmp_path: Path, architecture: str, tied: bool) -> None:
    base = make_base(tmp_path / "base", architecture, tied=tied)
    model = build_adapted(base, _recipe(), PIECES, BASE_VOCAB)
    packed = _quantised(model)
    assert len(packed) == 2 * 7 and all(value.dtype == torch.uint8 for value in packed.values())
    assert model.input_table.base_VD.dtype == model.output_table.base_VD.dtype == torch.float32
    whole = build_adapted(base, _recipe("none"), PIECES, BASE_VOCAB)
    assert sum(map(weight_count, model.parameters())) == sum(map(weight_count, whole.parameters()))
    assert list(model.trained()) == list(whole.trained())


@pytest.mark.parametrize("guarded", [True, False])
def test_evaluation_leaves_the_layout_of_4_bit_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """As on a CPU with bf16 instructions, where bitsandbytes lays them out anew at the first evaluation."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    if not guarded:
        monkeypatch.setattr("persianmind.model.adapted.keep_4bit_layout", lambda model: None)
    model = build_adapted(make_base(tmp_path / "base", "llama", tied=False), _recipe(), PIECES, BASE_VOCAB)
    before = {name: value.clone() for name, value in _quantised(model).items()}
    layers: Any = model.eval().causal_lm.get_decoder()  # type: ignore[operator]
    projection = layers.layers[0].mlp.gate_proj.base_layer
    sound = True
    with torch.no_grad():
        try:
            projection(torch.ones(1, projection.in_features))
        except Exception:  # too narrow for it, or without that layout's kernel
            sound = False
    sound &= all(torch.equal(value, before[name]) for name, value in _quantised(model).items())
    assert sound == guarded


def test_the_loss_is_near_that_of_the_whole_base(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    batch = packed_batch(vocab=VOCAB)
    losses = []
    for quantize in ("none", "nf4"):
        model = build_adapted(base, _recipe(quantize), PIECES, BASE_VOCAB).eval()
        with torch.no_grad():
            losses.append(float(model(**batch)))
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.05)


def test_training_lowers_the_loss_and_leaves_the_4_bit_base_alone(tmp_path: Path) -> None:
    prepare_environment()
    start_distributed(RANKS)
    base = make_base(tmp_path / "base", "llama", tied=False)
    model = build_adapted(base, _recipe(), PIECES, BASE_VOCAB)
    config = resolve_deepspeed_config(ROOT / "ds_configs" / "zero2_qlora.json", load_recipe("tiny"), 1)
    engine = DeepSpeedEngine(model, config, RANKS)
    engine.set_rates(dict.fromkeys(("adapters_a", "adapters_b", "embeddings"), 1e-2))
    before = {name: value.detach().clone() for name, value in _quantised(model).items()}
    batch: Any = {name: np.asarray(value) for name, value in packed_batch(vocab=VOCAB).items()}
    losses = [engine.step([batch]).loss for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in _quantised(model).items())
    masters = engine._deepspeed.optimizer.single_partition_of_fp32_groups
    assert all(master.dtype == torch.float32 for master in masters)
    engine.close()
