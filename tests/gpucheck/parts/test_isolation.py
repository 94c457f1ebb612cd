"""Exactly zero between documents; the least leak fails the part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import NumberKind
from persianmind.gpucheck.parts import isolation
from persianmind.gpucheck.setting import PartSetting
from persianmind.model.adapted import AdaptedModel
from persianmind.model.documents import documents_of


@pytest.fixture(autouse=True)
def _one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "number_kinds", lambda device: [NumberKind("fp32", "fp32", "none")])
    monkeypatch.setattr(isolation, "attentions", lambda device, precision: ["auto"])


def test_a_sound_model_passes_and_joined_documents_are_seen(small: PartSetting, findings: Findings) -> None:
    isolation.measure_isolation(small, findings)
    assert len(findings.checks) == 4 and all(check["ok"] for check in findings.checks)
    assert all(check["documents"] >= 2 for check in findings.checks if "documents" in check)


def test_a_millionth_of_a_leak_fails(
    small: PartSetting, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = AdaptedModel.hidden_states

    def leaking(
        self: AdaptedModel, ids: Any, positions: Tensor, documents: Any = None, **more: Any
    ) -> Tensor:
        unbroken = np.tile(np.arange(positions.shape[1]), (positions.shape[0], 1))
        joined = ordinary(self, ids, positions, documents_of(unbroken, torch.device("cpu")), **more)
        return ordinary(self, ids, positions, documents, **more) + 1e-6 * joined

    monkeypatch.setattr(AdaptedModel, "hidden_states", leaking)
    isolation.measure_isolation(small, findings)
    assert [check["ok"] for check in findings.checks] == [False, True, False, True]
