"""Our forward and backward pass equals plain transformers', and a model that is wrong does not pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import NumberKind
from persianmind.gpucheck.parts import numerics
from persianmind.gpucheck.setting import PartSetting
from persianmind.model.adapted import AdaptedModel
from persianmind.model.documents import documents_of


@pytest.fixture(autouse=True)
def _one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32, one attention, no recompute: the whole table is for the check itself."""
    monkeypatch.setattr(numerics, "number_kinds", lambda device: [NumberKind("fp32", "fp32", "none")])
    monkeypatch.setattr(numerics, "attentions", lambda device, precision: ["auto"])
    monkeypatch.setattr(numerics, "RECOMPUTE", ("off",))


def failed(findings: Findings) -> list[str]:
    return [check["name"] for check in findings.checks if not check["ok"]]


def test_a_sound_model_passes_and_planted_faults_are_seen(small: PartSetting, findings: Findings) -> None:
    numerics.measure_numerics(small, findings)
    assert [check["name"] for check in findings.checks] == [
        "fp32 auto micro-batch 1 recompute off",
        "fp32 auto micro-batch 2 recompute off",
        "control: fp32 auto: labels one place late",
        "control: fp32 auto: documents joined",
    ]
    assert not failed(findings) and findings.values["worst_gradient_error"]["fp32"] < 1e-5
    assert findings.values["documents_per_sequence"] >= 2


def test_a_model_whose_documents_see_each_other_fails(
    small: PartSetting, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = AdaptedModel.hidden_states

    def joined(self: AdaptedModel, ids: Any, positions: Tensor, documents: Any = None, **more: Any) -> Tensor:
        unbroken = np.tile(np.arange(positions.shape[1]), (positions.shape[0], 1))
        return ordinary(self, ids, positions, documents_of(unbroken, torch.device("cpu")), **more)

    monkeypatch.setattr(AdaptedModel, "hidden_states", joined)
    numerics.measure_numerics(small, findings)
    assert len(failed(findings)) == 2 and "micro-batch" in failed(findings)[0]


def test_a_gradient_that_is_a_thousandth_too_large_fails(
    small: PartSetting, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = numerics.our_gradients

    def larger(*arguments: Any) -> Any:
        loss, gradients = ordinary(*arguments)
        return loss, {name: value * (1.001 if "lora_B" in name else 1) for name, value in gradients.items()}

    monkeypatch.setattr(numerics, "our_gradients", larger)
    numerics.measure_numerics(small, findings)
    assert failed(findings) == [check["name"] for check in findings.checks[:2]]


def test_a_planted_fault_that_is_none_fails(
    small: PartSetting, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controls are checks themselves: one that nothing could fail is noticed."""
    ordinary = numerics.model_inputs
    monkeypatch.setattr(numerics, "documents_of", lambda positions, device: None)
    monkeypatch.setattr(numerics, "model_inputs", lambda batch, device: dict(ordinary(batch, device)))
    numerics.measure_numerics(small, findings)
    assert failed(findings) == ["control: fp32 auto: documents joined"]
