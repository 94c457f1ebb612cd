"""Doctor's all-reduce: real ranks, and ranks that fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from persianmind.checks.base import CheckContext, Level
from persianmind.gpucheck import doctor
from persianmind.gpucheck.doctor import check_ranks, rank_finding
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.setting import PartSetting
from persianmind.run.folder import RunFolder


def context(ranks: int) -> CheckContext:
    return CheckContext(None, Path("zero2.json"), RunFolder(Path("runs")), ranks)


def measured(gb_per_s: float, *, is_right: bool = True) -> list[dict[str, Any]]:
    row = {"collective": "all_reduce", "bus_gb_per_s": gb_per_s}
    return [{"is_right": True, "rows": [row]}, {"is_right": is_right, "rows": [row]}]


def fail_on_rank(setting: PartSetting, findings: Findings) -> None:
    """What a rank of the negative control runs."""
    raise RuntimeError(f"rank {os.environ['RANK']} has no network")


def test_one_rank_has_nothing_to_exchange() -> None:
    (found,) = check_ranks(context(1))
    assert found.level is Level.OK


def test_wrong_sums_fail_and_slow_gpus_are_warned_of() -> None:
    assert rank_finding(measured(0.2), small=True).level is Level.OK
    assert rank_finding(measured(9.0), small=False).level is Level.OK
    assert rank_finding(measured(0.2), small=False).level is Level.WARN
    wrong = rank_finding(measured(9.0, is_right=False), small=False)
    assert wrong.level is Level.FAIL and "wrong sums" in wrong.detail


@pytest.mark.integration
def test_two_real_ranks_exchange(capfd: pytest.CaptureFixture[str]) -> None:
    (found,) = check_ranks(context(2))
    assert found.level is Level.OK and "all-reduce over 2 ranks (gloo)" in found.detail
    assert capfd.readouterr().out == ""  # --json stays one object


@pytest.mark.integration
def test_ranks_that_fail_are_one_line_with_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMING", f"{__name__}:fail_on_rank")
    (found,) = check_ranks(context(2))
    assert found.level is Level.FAIL
    assert "has no network" in found.detail and "NCCL_DEBUG=INFO" in found.detail
