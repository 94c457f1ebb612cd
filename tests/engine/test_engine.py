"""The engine over two real ranks: one reduction per step whatever the accumulation; skipped steps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.launch import ROOT, launch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("engine") / "seen.json"
    launched = launch(
        ranks=2, script=ROOT / "tests" / "engine" / "engine_worker.py", environment={"OUT": str(out)}
    )
    assert launched.code == 0 and out.is_file(), launched.text
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def test_calls_and_bytes_do_not_grow_with_accumulation(seen: dict[str, Any]) -> None:
    ours = [seen[f"ours-{accumulation}"] for accumulation in (1, 4, 16)]
    assert ours[0] == ours[1] == ours[2]
    # fp32: gradients are reduced once and the stepped weights gathered once; the rest is a few scalars.
    once = 4 * seen["trained"]
    assert 2 * once <= ours[0]["payload_bytes"] < 2 * once * 1.02 + 4096


def test_control_the_ordinary_way_reduces_at_every_micro_batch(seen: dict[str, Any]) -> None:
    once = 4 * seen["trained"]
    default = [seen[f"default-{accumulation}"]["payload_bytes"] for accumulation in (1, 4, 16)]
    assert default[1] > default[0] + 2.5 * once and default[2] > default[0] + 14 * once


def test_ranks_agree_on_sums_and_on_the_highest_stop_level(seen: dict[str, Any]) -> None:
    assert seen["exchanged"] == {
        "sum": pytest.approx(1.2, rel=1e-15),  # float64: fp32 would be off by 1e-8
        "sum_counts": [1, 2**41, 14],
        "max": 10,
        "stop_level": 2,  # rank 0 said 1, rank 1 said 2
        "no_stop": 0,
        "gathered": [{"rank": 0}, {"rank": 1}],
        "steps": 2,
        "progress": 5,  # once per step and once per micro-batch
    }


def test_a_skipped_step_moves_nothing_and_asks_with_what_it_reports(seen: dict[str, Any]) -> None:
    assert seen["should_skip"] == {"moved": False, "reason": "spike", "asked": True}


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_what_is_not_finite_on_one_rank_is_skipped_on_all(seen: dict[str, Any], kind: str) -> None:
    assert seen[kind] == {"moved": False, "reason": "nonfinite"}


def test_the_gradient_of_a_batch_that_does_not_divide_is_that_of_one_process(seen: dict[str, Any]) -> None:
    assert set(seen["uneven"]) == {"1 in 1", "3 in 1", "3 in 2", "5 in 2", "5 in 8"}
    assert max(one["error"] for one in seen["uneven"].values()) < 1e-4
    assert [one["micro_batches"] for one in seen["uneven"].values()] == [1, 2, 1, 2, 1]  # of rank 0


def test_ranks_and_micro_batches_round_an_int8_gradient_the_same_way(seen: dict[str, Any]) -> None:
    """A last bit of an input decides here and there how it is rounded; other draws are further away."""
    same, other = (
        max(one["error"] for one in seen[name].values()) for name in ("uneven_int8", "uneven_int8_other_keys")
    )
    assert same < 1e-3 < other


def test_self_tests_pass_on_every_architecture_tied_and_untied(seen: dict[str, Any]) -> None:
    names = [f"{one}-{two}" for one in ("llama", "mistral", "qwen2") for two in ("untied", "tied")]
    assert seen["self_tests"] == dict.fromkeys(names, 3)


def test_control_the_next_sound_step_moves(seen: dict[str, Any]) -> None:
    assert seen["control"] == {"moved": True, "reason": None}
    assert seen["norms"][0] == pytest.approx(seen["norms"][1], rel=1e-6)
