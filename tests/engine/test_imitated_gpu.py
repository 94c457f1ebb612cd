"""Whole micro-batches, evaluation and the check of an export on an imitated GPU (meta): no host sync, and no
tensor left on the CPU."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, masking_utils

from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.model.adapted import AdaptedModel, adapt
from persianmind.model.documents import model_inputs
from persianmind.publish import export
from persianmind.publish.check import exported_losses, load_exported, trained_losses
from persianmind.publish.weights import TrainedRun
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.support.devices import META, OneDevice

VOCAB, PIECES = 256, [[1]] * 8
RECOMPUTE = ("full", "off", "selective")
CONFIG = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def meta_model(dtype: torch.dtype, recompute: str = "full", attention: str = "auto") -> AdaptedModel:
    recipe = load_recipe(
        "tiny", [f"train.gradient_checkpointing={recompute}", f"train.attention={attention}"]
    )
    with META:
        causal_lm = LlamaForCausalLM(CONFIG).to(dtype)
    return adapt(causal_lm, recipe, PIECES, VOCAB).train()


def batch(size: int = 2) -> dict[str, Any]:
    positions = np.tile(np.concatenate([np.arange(n) for n in (20, 30, 14)]), (size, 1))
    ids = np.random.default_rng(0).integers(0, VOCAB + 8, positions.shape)
    return {"input_ids": ids, "position_ids": positions, "labels": np.where(positions > 4, ids, -100)}


class FakeDeepSpeed:
    """The three things a step does with DeepSpeed before it reduces."""

    def __init__(self, model: AdaptedModel) -> None:
        self.module = model

    @contextmanager
    def coalesce_grad_reduction(self) -> Any:
        yield

    def __call__(self, **inputs: Any) -> torch.Tensor:
        loss: torch.Tensor = self.module(**inputs)
        return loss

    def backward(self, loss: torch.Tensor, **_: Any) -> None:
        loss.backward()


def engine_on_meta(model: AdaptedModel) -> DeepSpeedEngine:
    engine = object.__new__(DeepSpeedEngine)
    engine.model, engine.device, engine.on_progress = model, META, lambda: None
    engine._deepspeed = FakeDeepSpeed(model)  # type: ignore[assignment]
    return engine


@pytest.mark.parametrize("attention", ["auto", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_accumulation_on_an_imitated_gpu(recompute: str, dtype: torch.dtype, attention: str) -> None:
    model = meta_model(dtype, recompute, attention)
    with OneDevice():
        summed = engine_on_meta(model)._accumulate([batch(2), batch(1)], scale=0.5)
    assert summed.device == META and summed.dtype == torch.float64
    assert all(value.grad is not None for value in model.trained().values())


def test_evaluation_on_an_imitated_gpu_reads_once_at_its_end() -> None:
    engine = engine_on_meta(meta_model(torch.bfloat16))
    beats: list[int] = []
    engine.on_progress = lambda: beats.append(1)
    with OneDevice(), pytest.raises(RuntimeError, match="cannot be called on meta"):
        engine.summed_loss([batch(1)] * 3, base_vocab_only=True)
    assert len(beats) == 3  # all of it came before the read


def test_export_check_on_an_imitated_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported model runs as transformers alone runs it, whose mask code waits for the GPU at each batch:
    that wait of its own is taken out here, nothing else."""
    config = LlamaConfig(**{**CONFIG.to_dict(), "vocab_size": VOCAB + 8})
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    batches = [batch(1), batch(1)]
    with OneDevice():
        losses = trained_losses(meta_model(torch.bfloat16), batches)
        with pytest.raises(RuntimeError, match="meta"):
            exported_losses(load_exported(tmp_path, META), batches, META, VOCAB)
    monkeypatch.setattr(
        masking_utils,
        "find_packed_sequence_indices",
        lambda ids: (torch.diff(ids, prepend=ids[:, :1] - 1, dim=-1) != 1).cumsum(-1),
    )
    with OneDevice():
        losses += exported_losses(load_exported(tmp_path, META), batches, META, VOCAB)
    assert len(losses) == 4 and {loss.device for loss in losses} == {META}


def seven_b_on_meta() -> LlamaForCausalLM:
    with META:
        return LlamaForCausalLM(LlamaConfig()).to(torch.bfloat16)  # transformers' defaults are Llama-2-7B's


@pytest.mark.parametrize("released", [True, False])
def test_finish_of_7b_holds_one_model_on_an_imitated_gpu(
    released: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of live parameters while the exported model is loaded; control: nothing is released."""
    recipe = load_recipe("tiny")
    model = adapt(seven_b_on_meta(), recipe, PIECES, 32_000)
    one = sum(value.nbytes for value in model.parameters())
    assert one > 13e9
    at_load: list[int] = []

    def load(*_: Any, **__: Any) -> Any:
        at_load.append(live_meta_bytes())
        raise KeyboardInterrupt  # what it would do then is another test's

    if not released:
        monkeypatch.setattr(AdaptedModel, "release", lambda self: None)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    monkeypatch.setattr(export, "check_batches", lambda *_: [])
    nothing: Any = None
    run = TrainedRun(RunFolder(tmp_path), recipe, tmp_path, nothing, nothing, 1, None)
    export.reference_losses(run, META, model)
    with pytest.raises(KeyboardInterrupt):
        load_exported(tmp_path, META)
    assert at_load == [0 if released else one]


def live_meta_bytes() -> int:
    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, torch.nn.Parameter)]
    return sum(one.nbytes for one in found if one.device == META)


def planted(model: AdaptedModel, fault: str) -> Any:
    inputs = model_inputs(batch(), META)
    if fault == "ids":
        inputs["input_ids"] = torch.from_numpy(batch()["input_ids"])
    elif fault == "index":
        inputs["targets_N"] = torch.arange(60)
    elif fault == "operand":
        projection = model.causal_lm.get_decoder().layers[1].mlp.up_proj  # type: ignore[operator]
        projection.base_layer.weight = torch.nn.Parameter(torch.zeros(96, 64, dtype=torch.bfloat16))
    return inputs


@pytest.mark.parametrize("fault", ["ids", "index", "operand"])
def test_control_a_tensor_left_on_the_cpu_of_an_imitated_gpu(fault: str) -> None:
    model = meta_model(torch.bfloat16)
    inputs = planted(model, fault)
    with OneDevice(), pytest.raises(RuntimeError, match="over tensors on cpu and meta"):
        model(**inputs).backward()


@pytest.mark.parametrize("left_out", ["documents", "targets_N"])
def test_control_what_the_host_knows_not_it_waits_for_on_an_imitated_gpu(left_out: str) -> None:
    model = meta_model(torch.bfloat16)
    inputs = model_inputs(batch(), META)
    del inputs[left_out]
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        model(**inputs)
