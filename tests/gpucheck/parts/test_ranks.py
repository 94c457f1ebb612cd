"""The engine's gradients against one process, on a group of one; the whole check runs it on two ranks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.registry import backend
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.parts.ranks import GRADIENT_LIMIT, compare_on_rank
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import TINY, save_base

LIMIT = GRADIENT_LIMIT["fp32"]


@pytest.fixture
def on_one_rank(small: PartSetting) -> PartSetting:
    backend().prepare_environment()
    base = save_base(TINY, small.folder / "base")
    return replace(small, options={"base": str(base), "precision": "fp32"})


def test_equal_gradients_and_a_fault_that_is_seen(on_one_rank: PartSetting, findings: Findings) -> None:
    compare_on_rank(on_one_rank, findings)
    assert max(findings.values["gradient_error"].values()) <= LIMIT
    assert min(findings.values["control_error"].values()) > 100 * LIMIT


def test_a_wrong_reduction_is_beyond_the_limit(
    on_one_rank: PartSetting, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = DeepSpeedEngine._accumulate
    monkeypatch.setattr(
        DeepSpeedEngine, "_accumulate", lambda self, batches, scale: ordinary(self, batches, scale * 1.01)
    )
    compare_on_rank(on_one_rank, findings)
    assert min(findings.values["gradient_error"].values()) > LIMIT
