"""An int8 base whole: what is loaded, its loss and gradients, rounding by sample, and who refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from persianmind.common.errors import BaseModelError
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.ranks import Ranks
from persianmind.estimate.flops import weight_count
from persianmind.model import folded_lora
from persianmind.model.adapted import AdaptedModel, build_adapted, load_base
from persianmind.model.families import check_family
from persianmind.model.int8 import Int8Linear, int8_projections, round_to_nearest
from persianmind.model.int8_loading import make_int8
from persianmind.recipe.loading import load_recipe
from tests.model.helpers import BASE_VOCAB, PIECES, make_base, make_recipe, packed_batch, perturbed
from tests.support.launch import ROOT

RANKS = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)
VOCAB = BASE_VOCAB + len(PIECES)
KEYS = torch.tensor([11])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base", "llama", tied=False)


def made(
    base: Path, quantize: str = "int8", adapter: dict[str, Any] | None = None, **train: Any
) -> AdaptedModel:
    recipe = make_recipe(
        train={"precision": "fp32", "quantize": quantize, "gradient_checkpointing": "off", **train},
        adapter=adapter or {},
    )
    return perturbed(build_adapted(base, recipe, PIECES, BASE_VOCAB)).train()


def gradient_of(
    model: AdaptedModel, batch: dict[str, torch.Tensor] | None = None, keys: Any = KEYS
) -> torch.Tensor:
    batch = batch or packed_batch(vocab=VOCAB)
    torch.manual_seed(0)  # dropout's
    model(**batch, sample_keys=keys).backward()
    found = torch.cat([value.grad.flatten() for value in model.trained().values() if value.grad is not None])
    model.zero_grad()
    return found


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.detach() - expected.detach()).norm() / expected.detach().norm())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
def test_projections_are_int8_and_tables_are_not(tmp_path: Path, architecture: str, tied: bool) -> None:
    folder = make_base(tmp_path / "base", architecture, tied=tied)
    model, whole = made(folder), made(folder, "none")
    projections = int8_projections(model)
    assert len(projections) == sum(isinstance(one, torch.nn.Linear) for one in _layers(whole)) // 3
    assert all(one.weight.dtype == torch.int8 for one in projections)
    assert model.input_table.base_VD.dtype == model.output_table.base_VD.dtype == torch.float32
    assert sum(map(weight_count, model.parameters())) == sum(map(weight_count, whole.parameters()))
    assert list(model.trained()) == list(whole.trained())
    assert all(torch.equal(model.trained()[name], value) for name, value in whole.trained().items())


def _layers(model: AdaptedModel) -> list[torch.nn.Module]:
    """With two small ones of an adapter for each projection."""
    return [one for layer in model.causal_lm.get_decoder().layers for one in layer.modules()]  # type: ignore[operator]


def test_weights_are_those_of_the_file_and_the_same_each_time(base: Path) -> None:
    once, again = load_base(base, _int8_recipe()), load_base(base, _int8_recipe())
    in_file = load_file(base / "model.safetensors")
    for name, module in once.named_modules():
        if isinstance(module, Int8Linear):
            assert torch.equal(module.weight, again.get_submodule(name).weight)
            assert distance(module.dequantize(), in_file[f"{name}.weight"]) < 0.01


def _int8_recipe() -> Any:
    return make_recipe(train={"precision": "fp32", "quantize": "int8"})


def test_loss_and_gradient_are_near_those_of_the_whole_base(base: Path) -> None:
    whole, int8 = made(base, "none"), made(base)
    with torch.no_grad():
        losses = [float(model(**packed_batch(vocab=VOCAB))) for model in (whole, int8)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert 1e-4 < distance(gradient_of(int8), gradient_of(whole)) < 0.02


@pytest.mark.parametrize("adapter", [{"dora": True}, {"dropout": 0.2}], ids=str)
def test_by_pefts_own_forward_as_well(base: Path, adapter: dict[str, Any]) -> None:
    whole, int8 = (gradient_of(made(base, kind, adapter)) for kind in ("none", "int8"))
    assert 1e-4 < distance(int8, whole) < 0.02


def test_doras_norms_are_those_of_the_weights(base: Path) -> None:
    """Of the raw int8 numbers they would be some hundred times larger."""
    whole, int8 = made(base, "none", {"dora": True}), made(base, "int8", {"dora": True})
    norms = [name for name in whole.trained() if "magnitude" in name]
    assert norms
    for name in norms:
        assert distance(int8.trained()[name], whole.trained()[name]) < 0.05


def test_folded_adapters_compute_what_pefts_forward_does(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folded = made(base)
    monkeypatch.setattr("persianmind.model.adapted.fold_adapters", lambda _: 0)
    plain = made(base)
    assert folded_lora._is_plain(next(one for one in plain.modules() if hasattr(one, "lora_A")))
    with round_to_nearest(folded), round_to_nearest(plain):
        assert distance(gradient_of(folded), gradient_of(plain)) < 1e-3


@pytest.mark.parametrize("setting", ["selective", "full", {"full_layers": 1}], ids=str)
def test_recomputation_changes_no_bit(base: Path, setting: Any) -> None:
    expected = gradient_of(made(base))
    assert torch.equal(gradient_of(made(base, gradient_checkpointing=setting)), expected)


def test_micro_batches_change_nothing_but_the_order_of_sums(base: Path) -> None:
    model = made(base)
    batches = [packed_batch(vocab=VOCAB, seed=seed) for seed in (1, 2)]
    joined = {name: torch.cat([one[name] for one in batches]) for name in batches[0]}
    keys = torch.tensor([5, -(2**40)])
    alone = sum(gradient_of(model, one, keys[i : i + 1]) for i, one in enumerate(batches))
    turned = {name: value.flip(0) for name, value in joined.items()}
    assert distance(gradient_of(model, joined, keys), alone) < 1e-4  # type: ignore[arg-type]
    assert distance(gradient_of(model, turned, keys.flip(0)), alone) < 1e-4  # type: ignore[arg-type]
    # Control: keys at other sequences.
    assert distance(gradient_of(model, joined, keys.flip(0)), alone) > 1e-3  # type: ignore[arg-type]


def test_control_other_keys_round_nearest_and_no_keys_are_told_apart(base: Path) -> None:
    model = made(base)
    expected = gradient_of(model)
    assert torch.equal(gradient_of(model), expected)
    assert 1e-4 < distance(gradient_of(model, keys=KEYS + 1), expected) < 0.02
    with round_to_nearest(model):
        assert 1e-4 < distance(gradient_of(model, keys=None), expected) < 0.02
    with pytest.raises(RuntimeError, match="sample_keys"):
        gradient_of(model, keys=None)


def test_the_mean_over_many_keys_is_the_exact_gradient_and_to_the_nearest_is_not(base: Path) -> None:
    model = made(base)
    for projection in int8_projections(model):
        projection.kind = "float"
    exact = gradient_of(model)
    with round_to_nearest(model):
        nearest = distance(gradient_of(model), exact)
    for projection in int8_projections(model):
        projection.kind = "stochastic"
    one = distance(gradient_of(model), exact)
    mean = sum(gradient_of(model, keys=KEYS + i) for i in range(18)) / 18
    assert distance(mean, exact) < 0.4 * min(one, nearest)  # type: ignore[arg-type]


def test_training_lowers_the_loss_and_leaves_the_base_alone(base: Path) -> None:
    prepare_environment()
    start_distributed(RANKS)
    model = build_adapted(base, _int8_recipe(), PIECES, BASE_VOCAB)
    config = resolve_deepspeed_config(ROOT / "ds_configs" / "zero2.json", load_recipe("tiny"), 1)
    engine = DeepSpeedEngine(model, config, RANKS)
    engine.set_rates(dict.fromkeys(("adapters_a", "adapters_b", "embeddings"), 1e-2))
    before = [one.weight.clone() for one in int8_projections(model)]
    batch: Any = {name: np.asarray(value) for name, value in packed_batch(vocab=VOCAB).items()}
    losses = [engine.step([{**batch, "sample_keys": np.array([step])}]).loss for step in range(10)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(one.weight, old) for one, old in zip(int8_projections(model), before, strict=True))
    engine.close()


def test_sizes_that_gpus_do_not_multiply_are_refused(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 172}
    check_family(config, "x", "nf4")
    check_family({**config, "intermediate_size": 176}, "x", "int8")
    with pytest.raises(
        BaseModelError, match=r"intermediate_size is 172.*multiples of 8; give train\.quantize"
    ):
        check_family(config, "x", "int8")
    from transformers import AutoConfig, AutoModelForCausalLM

    odd = AutoConfig.for_model(
        "llama",
        hidden_size=36,
        intermediate_size=64,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=9,
    )
    with (
        torch.device("meta"),
        pytest.raises(BaseModelError, match=r"self_attn\.q_proj of this base is 36 x 36"),
    ):
        make_int8(AutoModelForCausalLM.from_config(odd))
