"""Liger's kernels: the wiring, with a package of the real names in its place. Its kernels need a GPU."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from torch import nn
from transformers import LlamaConfig

from persianmind.common.errors import MachineError, RecipeError
from persianmind.model.liger import apply_liger, check_liger
from persianmind.recipe.loading import load_recipe


class Model(nn.Module):
    config = LlamaConfig()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the function of the Llama family is called with; its parameters are those of liger-kernel 0.6."""
    seen: list[dict[str, Any]] = []

    def apply_liger_kernel_to_llama(
        rope: bool = True,
        cross_entropy: bool = False,
        fused_linear_cross_entropy: bool = True,
        rms_norm: bool = True,
        swiglu: bool = True,
        model: Any = None,
    ) -> None:
        given = (rope, rms_norm, swiglu, cross_entropy, fused_linear_cross_entropy)
        seen.append({"model": model, "given": given})

    package = ModuleType("liger_kernel.transformers")
    package.apply_liger_kernel_to_llama = apply_liger_kernel_to_llama  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", package)
    monkeypatch.setattr("persianmind.model.liger.importlib.util.find_spec", lambda name: object())
    return seen


def test_the_model_is_patched_and_the_loss_is_not(calls: list[dict[str, Any]]) -> None:
    model = Model()
    apply_liger(model, "cuda")
    (call,) = calls
    assert call["model"] is model and call["given"] == (True, True, True, False, False)


def test_where_it_cannot_be_is_one_line(calls: list[dict[str, Any]]) -> None:
    with pytest.raises(MachineError, match=r"for GPUs; give train\.kernels=torch"):
        apply_liger(Model(), "cpu")
    model = Model()
    model.config = LlamaConfig()
    model.config.model_type = "nobody"
    with pytest.raises(MachineError, match="does not know the family nobody"):
        apply_liger(model, "cuda")
    assert not calls


def test_missing_and_asked_for_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persianmind.model.liger.importlib.util.find_spec", lambda name: None)
    assert check_liger("torch", "cuda") == "torch's"
    with pytest.raises(MachineError, match=r"pip install 'persianmind\[liger\]'"):
        check_liger("liger", "cuda")


def test_with_compiled_layers_it_is_refused() -> None:
    with pytest.raises(RecipeError, match="give one of the two"):
        load_recipe("tiny", ["train.kernels=liger", "train.compile=true"])
