"""The ratios of benchmarks/train.py: what they divide, what is null and why."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.lib.train_figures import AIMS, SMALL_KEYS, Aim, large_ratios, reasons, small_ratios

CONTRACT = {
    "ours_over_hf", "ours_over_trl", "ours_over_trl_full", "selective_over_full", "selective_over_off",
    "int8_over_fp32", "int8_over_full", "ours_over_bare", "attention_time", "attention_bytes",
    "memory_over_trl", "memory_over_hf",
}  # fmt: skip


def _levers(**without: str) -> dict[str, Any]:
    seconds = {
        "off": [2.0, 9.0, 2.0], "selective": [2.1, 2.1, 9.0], "full": [3.0, 3.0, 3.0],
        "int8": [1.0, 1.0, 1.0], "int8-full": [1.5, 1.5, 1.5],
        "bare": [2.5, 2.5, 2.5], "bare-full": [4.0, 4.0, 4.0],
    }  # fmt: skip
    flops = {"off": 400, "selective": 400, "full": 600}
    return {
        "seconds": {name: values for name, values in seconds.items() if name not in without},
        "flops": flops,
        "missing_levers": without,
    }


def _run(speed: float, peak: int = 100) -> dict[str, Any]:
    return {
        "useful_tokens_per_s": speed,
        "peak_bytes": peak,
        "above_imports_bytes": peak,
        "step_s": 1 / speed,
    }


def _small() -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    runs = {
        side: [_run(10.0)] for side in ("ours", "ours-selective", "ours-full", "hf", "trl", "bare", "ours-1")
    }
    both = {"peak_bytes": 50, "above_model_bytes": 20}
    attention = {"seconds": {"packed": 1, "dense": 2}, "bytes": {"packed": 1, "dense": 4}}
    extra = {"attention": attention, "traffic": {"ours": 1, "default": 12}}
    return runs, {**extra, "memory-ours": both, "memory-hf": both}


def test_ratios_are_of_medians_and_the_right_way_up() -> None:
    runs = {"ours-selective": [_run(20.0, 80)], "ours-full": [_run(13.0)], "trl": [_run(10.0)]}
    found = large_ratios(_levers(), runs)
    assert found["selective_over_full"] == pytest.approx(0.7)
    assert found["int8_over_full"] == pytest.approx(1 / 3)
    assert found["flops_selective_over_off"] == 1
    assert found["ours_over_trl"] == pytest.approx(2)
    assert found["peak_over_trl"] == pytest.approx(0.8)
    assert found["int8_over_trl"] is None


def test_all_keys_of_the_contract_are_there() -> None:
    small = small_ratios(*_small())
    assert set(large_ratios(_levers(), {})) | set(small) >= CONTRACT
    assert set(SMALL_KEYS) <= set(small)
    assert set(AIMS) <= set(large_ratios(_levers(), {})) | set(small)


def test_a_null_has_its_reason() -> None:
    levers = _levers(int8="train.quantize: int8 is not known")
    runs = {"ours-int8": [{"missing": "train.quantize: int8 is not known"}], "trl": [{"missing": "no trl"}]}
    ratios = large_ratios(levers, runs) | dict.fromkeys(SMALL_KEYS)
    found = reasons({"levers": levers, "runs_2048x2": runs, "ratios": ratios, "quick": True})
    assert found["int8_over_fp32"] == "train.quantize: int8 is not known"
    assert found["ours_over_trl"] == "no trl"
    assert found["ours_over_hf"] == "not in --quick"
    assert "selective_over_full" not in found


def test_a_missed_aim_is_called_missed() -> None:
    assert Aim(1.8, at_least=True).verdict(1.7, False) == "missed"
    assert Aim(1.8, at_least=True).verdict(1.8, False) == "met"
    assert Aim(0.45, vnni=True).verdict(0.9, True) == "missed"
    assert "VNNI" in Aim(0.45, vnni=True).verdict(0.9, False)
    assert Aim(0.45).verdict(None, True) == "not measured"
