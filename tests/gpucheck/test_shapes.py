"""Random models are those that training would load; batches are packed as training packs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from persianmind.gpucheck.shapes import (
    NUMERIC,
    TINY,
    llama_2_7b,
    make_causal_lm,
    packed_batch,
    part_recipe,
    save_base,
)
from persianmind.model.adapted import adapt, build_adapted
from persianmind.model.documents import documents_of, model_inputs

CPU = torch.device("cpu")


@pytest.mark.parametrize("quantize", ["none", "nf4", "int8"])
def test_a_model_made_on_its_device_is_the_one_that_is_loaded(tmp_path: Path, quantize: str) -> None:
    recipe = part_recipe(TINY, f"train.quantize={quantize}")
    loaded = build_adapted(save_base(TINY, tmp_path / "base"), recipe, TINY.pieces, TINY.vocab)
    made = adapt(make_causal_lm(TINY, "fp32", quantize, CPU), recipe, TINY.pieces, TINY.vocab)
    assert [
        (name, type(value).__name__, value.shape, value.dtype) for name, value in made.named_parameters()
    ] == [(name, type(value).__name__, value.shape, value.dtype) for name, value in loaded.named_parameters()]
    assert list(made.trained()) == list(loaded.trained())
    loss = made(**model_inputs(packed_batch(TINY, 1, seed=0), CPU))
    loss.backward()
    assert loss.isfinite() and all(value.grad is not None for value in made.trained().values())


@pytest.mark.parametrize("shape", [TINY, NUMERIC, llama_2_7b()])
def test_sequences_are_full_of_whole_documents(shape: object) -> None:
    assert isinstance(shape, type(TINY))
    batch = packed_batch(shape, 2, seed=1)
    documents = documents_of(batch["position_ids"], CPU)
    assert len(documents.lengths) >= 4 and sum(documents.lengths) == 2 * shape.seq_len
    assert batch["input_ids"].max() >= shape.vocab and batch["input_ids"].max() < shape.vocab + shape.added
    ends = np.cumsum(documents.lengths) - 1
    labels = batch["labels"].reshape(-1)
    assert (labels[ends] == -100).all() and (labels >= 0).sum() == 2 * shape.seq_len - len(ends)
    inside = np.setdiff1d(np.arange(labels.size), ends)
    assert (labels[inside] == batch["input_ids"].reshape(-1)[inside + 1]).all()


def test_the_reference_shape_is_llama_2_7b() -> None:
    shape = llama_2_7b()
    assert (shape.layers, shape.vocab + shape.added, shape.seq_len) == (32, 41_510, 2048)
