"""A rank's memory by kind, against sums made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from persianmind.model.adapted import AdaptedModel, adapt
from persianmind.train.memory import (
    MicroBatchBytes,
    measure_micro_batch,
    memory_by_kind,
    resized_batch,
    storage_bytes,
)
from tests.model.helpers import BASE_VOCAB, PIECES, make_recipe
from tests.model.test_attention import make_model

CPU = torch.device("cpu")
TOKENS, HIDDEN, FP32 = 48, 64, 4


class EngineOf:
    """What is asked of an engine."""

    def __init__(self, model: AdaptedModel) -> None:
        self.model = model
        self.flat = torch.zeros(30)

    def optimizer_tensors(self) -> Any:
        yield from (self.flat[:10], self.flat[10:], torch.zeros(5))


def adapted(recompute: str = "off", **adapter: Any) -> AdaptedModel:
    train = {"precision": "fp32", "gradient_checkpointing": recompute, "loss_chunk_tokens": 16}
    return adapt(make_model("llama"), make_recipe(train=train, adapter=adapter), PIECES, BASE_VOCAB)


def batch() -> dict[str, Any]:
    ids = np.arange(TOKENS)[None]
    return {"input_ids": ids, "position_ids": ids, "labels": ids}


def test_kinds_add_up_to_the_peak() -> None:
    model = adapted()
    found = memory_by_kind(EngineOf(model), MicroBatchBytes(1000, 200), 10**9)  # type: ignore[arg-type]
    names = dict(model.named_parameters())
    lora = sum(value.numel() for name, value in names.items() if "lora_" in name)
    tables = 2 * (BASE_VOCAB + len(PIECES)) * HIDDEN
    everything = sum(value.numel() for value in names.values())
    buffers = sum(value.numel() for value in model.buffers())
    assert (found.adapters, found.embeddings) == (FP32 * lora, FP32 * tables)
    assert found.weights == FP32 * (everything - lora - tables + buffers)
    assert found.optimizer == FP32 * (30 + 5)  # two views of one tensor are held once
    assert (found.activations, found.loss) == (1000, 200)
    assert sum(found.model_dump().values()) == 10**9


def test_a_micro_batch_is_measured() -> None:
    """Whole layers keep their input alone: each one's, and the final norm's, and little beside."""
    off, full = (measure_micro_batch(adapted(one), batch(), CPU) for one in ("off", "full"))
    assert off.activations > 10 * TOKENS * HIDDEN * FP32
    assert 2 * TOKENS * HIDDEN * FP32 <= full.activations < off.activations / 2
    chunk = 16 * (BASE_VOCAB + len(PIECES)) * FP32
    assert chunk <= off.loss == full.loss


@pytest.mark.parametrize("length", [TOKENS // 4, TOKENS, 2 * TOKENS + 5])
def test_a_micro_batch_of_another_length_is_measured_as_one_of_real_text(length: int) -> None:
    ids = np.arange(length)[None] % TOKENS
    real = {"input_ids": ids, "position_ids": np.arange(length)[None], "labels": ids}
    keys = {"sample_keys": np.zeros(1, dtype=np.int64)}
    resized = resized_batch(batch() | keys, length)
    assert resized["input_ids"].shape == (1, length) and resized["sample_keys"].shape == (1,)
    model = adapted("full")
    assert measure_micro_batch(model, resized, CPU) == measure_micro_batch(model, real, CPU)


def test_nothing_of_the_run_is_moved() -> None:
    model = adapted(dropout=0.5)
    before = torch.random.get_rng_state()
    first = measure_micro_batch(model, batch(), CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(value.grad is None for value in model.parameters())
    assert measure_micro_batch(model, batch(), CPU) == first
    assert not model.causal_lm.get_decoder()._forward_hooks  # type: ignore[operator]


def test_compiled_layers_are_measured_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without compiling them: a meter would be in the graph."""
    from persianmind.model.compiling import compile_layers

    expected = measure_micro_batch(adapted(), batch(), CPU)
    model = adapted()
    compile_layers(model.causal_lm)
    assert measure_micro_batch(model, batch(), CPU) == expected


def test_storage_is_counted_once() -> None:
    whole = torch.zeros(8)
    assert storage_bytes([whole, whole[:4], whole[4:]]) == 32
