"""Another number of ranks and back, LoRA and QLoRA, fp32 and bf16: same samples, losses within rounding."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, count, is_long, losses, prepared_copy
from tests.support.launch import Launched

pytestmark = pytest.mark.integration
# Ranks of each leg, and the step near which it is stopped; stages of 6, 3 and 3 steps.
STEPS, STAGES = 12, ("stages.0.tokens=6144", "stages.1.tokens=3072", "stages.2.tokens=3072")
JOURNEYS = {
    "2-1-2": [(2, 3), (1, 8), (2, 0)],
    "1-2-1": [(1, 3), (2, 8), (1, 0)],
    "2-4-1": [(2, 5), (4, 7), (1, 0)],
    "2-1-3-4": [(2, 3), (1, 5), (3, 8), (4, 0)],
}
QUANTIZE = {"lora": "none", "qlora": "nf4"}
# Gradients summed in another order. Measured: 1e-7 and 2e-4.
RELATIVE = {"fp32": 2e-6, "bf16": 2e-3}
SHORT = [
    ("2-1-2", "lora", "fp32"),
    ("1-2-1", "qlora", "fp32"),
    ("1-2-1", "lora", "bf16"),
    ("2-1-2", "qlora", "bf16"),
]
ALL = [(j, m, p) for j in JOURNEYS for m in QUANTIZE for p in RELATIVE]


@pytest.fixture(scope="module")
def wholes() -> dict[tuple[str, str, int], Launched]:
    """Runs that nothing disturbed, by method, precision and ranks; made when first asked for."""
    return {}


def options(method: str, precision: str) -> list[str]:
    """One way to train the short recipe."""
    ways = [f"train.quantize={QUANTIZE[method]}", f"train.precision={precision}"]
    return [*BARE, *ways, *STAGES, "train.self_tests=false"]


def run_leg(
    fleet: Fleet, run: Path, way: list[str], ranks: int, fault: str = ""
) -> tuple[Launched, set[str]]:
    """One call of the command, and the hashes of the frozen weights that its ranks printed."""
    done = fleet.run(run, *way, ranks=ranks, fault=fault, environment={"FROZEN": "1"})
    assert done.code == (75 if fault else 0), done.text
    return done, set(re.findall(r"^frozen .*$", done.text, flags=re.MULTILINE))


@pytest.mark.more
@pytest.mark.parametrize(("journey", "method", "precision"), ALL if is_long() else SHORT)
def test_journey(
    fleet: Fleet,
    tmp_path: Path,
    tiny_run: Launched,
    wholes: dict[tuple[str, str, int], Launched],
    journey: str,
    method: str,
    precision: str,
) -> None:
    legs, way = JOURNEYS[journey], options(method, precision)
    key = (method, precision, legs[0][0])
    if key not in wholes:
        undisturbed = prepared_copy(tiny_run.run, tmp_path / "whole", *way)
        wholes[key] = run_leg(fleet, undisturbed, way, legs[0][0])[0]
    run = prepared_copy(tiny_run.run, tmp_path / "run", *way)
    hashes: set[str] = set()
    for place, (ranks, stop) in enumerate(legs):
        done, frozen = run_leg(fleet, run, way, ranks, f"term:0:{stop}" if stop else "")
        hashes |= frozen
        assert place == 0 or f"resharded from {legs[place - 1][0]} to {ranks} ranks" in done.text
    assert len(hashes) == 1, hashes
    assert [line["step"] for line in done.metrics] == list(range(1, STEPS + 1))
    for ours, theirs in zip(done.metrics, wholes[key].metrics, strict=True):
        assert ours["first_sample"] == theirs["first_sample"]
        assert ours["target_tokens"] == theirs["target_tokens"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=RELATIVE[precision]), ours["step"]
    count("another number of ranks and back, LoRA and QLoRA, fp32 and bf16", 1, 1)


DROPOUT = "adapter.dropout=0.2"


@pytest.mark.more
def test_dropout_after_a_change_of_ranks_depends_on_seed_step_and_rank_alone(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    """Two resumes on one rank draw the same, whatever was drawn before; without the rule they do not."""
    way = [*BARE, *STAGES, DROPOUT, "train.self_tests=false"]
    start = prepared_copy(tiny_run.run, tmp_path / "start", *way)
    assert fleet.run(start, *way, fault="term:0:4").code == 75
    seen: list[dict[int, str]] = []
    for control in ("", "", ";no-rule:0:0", ";no-rule:0:0"):
        run = tmp_path / f"run-{len(seen)}"
        shutil.copytree(start, run)
        done = fleet.run(run, *way, ranks=1, fault=f"perturb:0:0{control}")
        assert done.code == 0, done.text
        seen.append(losses(done))
    assert seen[0] == seen[1]
    assert seen[2] != seen[3]
