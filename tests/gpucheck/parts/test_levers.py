"""The levers' rows on a group of one; the whole check runs every lever in a process of its own."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from persianmind.common.errors import RecipeError
from persianmind.engine.registry import backend
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.parts import levers
from persianmind.gpucheck.parts.levers import BASELINE, LEVERS, Lever
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import TINY


def asked(small: PartSetting, lever: Lever | None = None) -> PartSetting:
    backend().prepare_environment()
    options: dict[str, Any] = {"shape": asdict(TINY), "precision": "fp32"}
    return replace(small, options=options | ({} if lever is None else {"lever": asdict(lever)}))


@pytest.mark.parametrize("lever", [LEVERS[0], Lever("peft", folded=False)], ids=lambda one: one.name)
def test_a_lever_is_timed(lever: Lever, small: PartSetting, findings: Findings) -> None:
    levers.lever_on_rank(asked(small, lever), findings)
    row = findings.values["row"]
    assert row["ms"] > 0 and row["tokens_per_s"] == pytest.approx(TINY.seq_len / row["ms"] * 1000)
    assert row["first_step_s"] > 0


def test_feeding_is_timed_both_ways(small: PartSetting, findings: Findings) -> None:
    levers.feeding_on_rank(asked(small), findings)
    row = findings.values["row"]
    assert row["ms"] > 0 and row["not_ahead_ms"] > 0 and row["micro_batches"] > 1


def test_every_kernel_of_adamw_has_a_row() -> None:
    rows = levers.adamw_rows(TINY, torch.device("cpu"))
    assert {row["lever"] for row in rows} == {"AdamW fused", "AdamW foreach", "AdamW loop"}
    assert all(row["ms"] > 0 for row in rows)


def test_a_lever_that_cannot_run_says_why_and_the_others_go_on(
    small: PartSetting, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(function: str, *arguments: Any, options: Any, **_: Any) -> list[dict[str, Any]]:
        if options.get("lever", {}).get("quantize") == "int8":
            raise RecipeError("train.quantize: int8 cannot\nrun here")
        return [{"row": {"ms": 2.0, "tokens_per_s": 1.0}}]

    monkeypatch.setattr(levers, "run_on_ranks", run)
    levers.measure_levers(small, findings)
    rows = {row["lever"]: row for row in findings.values["rows"]}
    assert rows["int8 base, no recompute"] == {
        "lever": "int8 base, no recompute",
        "missing": "train.quantize: int8 cannot run here",
    }
    assert rows[BASELINE]["ms"] == 2.0 and "no recompute 1.00" in findings.summary
    assert "int8" not in findings.summary
    assert all(check["ok"] for check in findings.checks)


def test_a_baseline_that_failed_fails_the_part(
    small: PartSetting, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, **__: Any) -> list[dict[str, Any]]:
        raise RecipeError("nothing runs")

    monkeypatch.setattr(levers, "run_on_ranks", run)
    levers.measure_levers(small, findings)
    assert [check["ok"] for check in findings.checks] == [False]
