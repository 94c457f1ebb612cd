"""The adapted model on real architectures: what trains, isolation, counts, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from persianmind.common.errors import BaseModelError
from persianmind.model.adapted import build_adapted
from persianmind.model.documents import Documents, documents_of
from persianmind.model.init import initial_embeddings
from persianmind.model.loss import summed_cross_entropy
from tests.model.helpers import (
    ARCHITECTURES,
    BASE_VOCAB,
    PIECES,
    logits_of,
    make_base,
    make_recipe,
    packed_batch,
    perturbed,
)

VOCAB = BASE_VOCAB + len(PIECES)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trains_adapters_and_new_embeddings_and_nothing_else(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    base = make_base(tmp_path / "base", architecture, tied=tied)
    model = build_adapted(base, make_recipe(), PIECES, BASE_VOCAB)
    embeddings = [name for name in model.trained() if "lora_" not in name]
    assert len(embeddings) == (1 if tied else 2)
    assert sum("lora_" in name for name in model.trained()) == 2 * 7 * 2
    model(**packed_batch(vocab=VOCAB)).backward()
    for name, value in model.named_parameters():
        assert (value.grad is not None) == value.requires_grad, name


@pytest.mark.parametrize("checkpointing", ["off", "selective", "full", {"full_layers": 1}])
def test_gradient_checkpointing_changes_no_gradient(
    tmp_path: Path, checkpointing: str | dict[str, int]
) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    gradients = []
    for setting in ("off", checkpointing):
        recipe = make_recipe(train={"precision": "fp32", "gradient_checkpointing": setting})
        model = perturbed(build_adapted(base, recipe, PIECES, BASE_VOCAB))
        model.train()
        model(**packed_batch(vocab=VOCAB)).backward()
        gradients.append({name: value.grad for name, value in model.trained().items()})
    for name, gradient in gradients[0].items():
        assert float(gradient.abs().max()) > 0.0, name
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_documents_do_not_see_each_other(tmp_path: Path, architecture: str, precision: str) -> None:
    base = make_base(tmp_path / "base", architecture, tied=False)
    recipe = make_recipe(train={"precision": precision})
    model = perturbed(build_adapted(base, recipe, PIECES, BASE_VOCAB)).eval()
    batch = packed_batch(vocab=VOCAB, cut=20)
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, :20] = torch.randint(0, VOCAB, (20,))

    def second(values: dict[str, torch.Tensor], documents: Documents | None = None) -> torch.Tensor:
        return logits_of(model, values["input_ids"], values["position_ids"], documents)[0, 20:]

    assert torch.equal(second(batch), second(other))
    # Negative control: taken for one document, the two see each other.
    one = documents_of(np.arange(48)[None], torch.device("cpu"))
    assert not torch.equal(second(batch, one), second(other, one))


def test_loss_is_that_of_the_whole_logits(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    model = perturbed(build_adapted(base, make_recipe(), PIECES, BASE_VOCAB)).eval()
    batch = packed_batch(vocab=VOCAB)
    with torch.no_grad():
        logits = logits_of(model, batch["input_ids"], batch["position_ids"])
        expected = torch.nn.functional.cross_entropy(logits[0], batch["labels"][0], reduction="sum")
        assert torch.allclose(model(**batch), expected, rtol=1e-5)


def test_before_any_step_the_base_embeddings_score_as_the_base_model(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=True)
    model = build_adapted(base, make_recipe(), PIECES, BASE_VOCAB).eval()
    untouched = AutoModelForCausalLM.from_pretrained(base)
    batch = packed_batch(vocab=BASE_VOCAB)
    with torch.no_grad():
        hidden = untouched.model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).last_hidden_state
        expected = summed_cross_entropy(hidden, batch["labels"], untouched.lm_head.weight, None)
        assert torch.equal(model(**batch, base_vocab_only=True), expected)


def test_padding_of_the_base_table_is_dropped(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen2", tied=True, padding=32)
    model = build_adapted(base, make_recipe(), PIECES, BASE_VOCAB)
    assert model.input_table.base_vocab == BASE_VOCAB and model.input_table.added_vocab == len(PIECES)


def test_a_table_smaller_than_its_tokenizer_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=True)
    with pytest.raises(BaseModelError, match="does not belong to this model"):
        build_adapted(base, make_recipe(), PIECES, BASE_VOCAB + 1)


def test_train_embeddings_all_trains_the_base_embeddings_too(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    model = build_adapted(base, make_recipe(vocab={"train_embeddings": "all"}), PIECES, BASE_VOCAB)
    assert sum("base_VD" in name for name in model.trained()) == 2


def test_building_a_model_leaves_the_generators_of_imitated_gpus_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rank seeds its own GPU first; seeded again by all alike, every rank would drop the same places."""
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    base = make_base(tmp_path / "base", "llama", tied=True)
    recipe = make_recipe(adapter={"dropout": 0.1})
    weights = []
    for rank in (0, 1):
        torch.manual_seed(100 + rank)
        weights.append(build_adapted(base, recipe, PIECES, BASE_VOCAB).trained())
        assert seeds[-1] == 100 + rank and torch.initial_seed() == 100 + rank
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("method", ["subword-mean", "mean", "normal", "random"])
def test_new_embeddings_are_computed_on_the_host_also_on_an_imitated_gpu(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every value is made of what was brought to the host, whose bits are the same everywhere."""
    table = torch.randn(BASE_VOCAB, 16, generator=torch.Generator().manual_seed(1))
    expected = initial_embeddings(table, PIECES, method, torch.Generator().manual_seed(2))
    poisoned = torch.full_like(table, float("nan"))  # stands for the GPU's own copy
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: table if self.shape == table.shape else self)
    assert torch.equal(
        initial_embeddings(poisoned, PIECES, method, torch.Generator().manual_seed(2)), expected
    )
