"""Every family against plain transformers and peft: loss, gradients, both exports; and the same with the
families' table emptied, where those that need it must come out wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from persianmind.model import families
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.export.adapter import write_adapter
from persianmind.model.export.trained import TrainedWeights
from persianmind.train.selftest import check_isolation
from tests.model.export.test_merged import export
from tests.model.family_cases import (
    CASES,
    VOCAB,
    WRONG,
    make_family_base,
    marked,
    plain_gradients,
    plain_loss,
    plain_twin,
)
from tests.model.helpers import BASE_VOCAB, PIECES, make_recipe, packed_batch, perturbed

TOLERANCE = 2e-6


def _adapted(base: Path) -> AdaptedModel:
    return perturbed(build_adapted(base, make_recipe(), PIECES, BASE_VOCAB)).eval()


def _relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", marked(CASES))
def test_loss_gradients_and_export_are_those_of_plain_transformers(tmp_path: Path, name: str) -> None:
    base = make_family_base(tmp_path / "base", name)
    ours = _adapted(base)
    plain = plain_twin(base, ours)
    batch = packed_batch(vocab=VOCAB)
    loss, expected = ours(**batch), plain_loss(plain, batch)
    loss.backward()
    expected.backward()  # type: ignore[no-untyped-call]
    assert _relative(loss.detach(), expected.detach()) < TOLERANCE
    gradients = plain_gradients(plain, ours)
    for parameter, value in ours.trained().items():
        assert value.grad is not None and float(value.grad.norm()) > 0.0, parameter
        assert _relative(value.grad, gradients[parameter]) < TOLERANCE, parameter
    values = {name: value.numpy() for name, value in batch.items()}
    assert check_isolation(ours, values, torch.device("cpu")) == 0.0
    exported = export(tmp_path / "out", base, ours, make_recipe())
    write_adapter(tmp_path, base, TrainedWeights.of(ours, make_recipe().adapter), base_name=None)
    with torch.no_grad():
        assert _relative(plain_loss(exported, batch), expected.detach()) < TOLERANCE
        assert _relative(plain_loss(_with_peft(base, tmp_path), batch), expected.detach()) < TOLERANCE


def _with_peft(base: Path, adapter: Path) -> Any:
    """Plain peft over the base; a bias of the head gets the mean by transformers' own resizing."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    model.resize_token_embeddings(VOCAB)
    return PeftModel.from_pretrained(model, adapter).eval()


@pytest.mark.parametrize("name", marked(WRONG))
def test_control_without_the_table_the_loss_is_another(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "FAMILIES", dict.fromkeys(families.FAMILIES, families.PLAIN))
    monkeypatch.setattr("persianmind.model.adapted.check_family", lambda *_: families.PLAIN)
    base = make_family_base(tmp_path / "base", name)
    ours = _adapted(base)
    monkeypatch.undo()
    with torch.no_grad():
        expected = plain_loss(plain_twin(base, _adapted(base)), batch := packed_batch(vocab=VOCAB))
        assert _relative(ours(**batch), expected) > 1e-3
