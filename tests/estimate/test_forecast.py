"""The forecast against runs that others published, and its arithmetic by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from persianmind.common.errors import UsageError
from persianmind.estimate.forecast import (
    LEAST_UTILISATION,
    MOST_UTILISATION,
    REFERENCES,
    Forecast,
    forecast,
)
from persianmind.estimate.gpus import find_gpu
from persianmind.estimate.int8 import int8_speedup
from persianmind.estimate.links import find_link
from persianmind.estimate.measured import MeasuredRun
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe


@dataclass(frozen=True)
class Counts:
    base: int
    added: int
    trained: int


# Llama-2-7B with 41,510 ids: counted in tests/estimate by the training code.
PAPER = Counts(6_738_415_616, 77_905_920, 97_894_400)
LAYERS, WIDTH, MLP, LENGTH = 32, 4096, 11_008, 2048
FULL = "train.gradient_checkpointing=full"  # decided, as a plan has it before it asks for time
PAPERS_GRID = ("energy.pue=1.4", "energy.intensity_g_per_kwh=494")


def flops_per_token(vocab: int) -> float:
    """Of a 7B Llama with every layer recomputed: forward twice and once backward through frozen weights,
    attention over the causal half, logits forward, again for the chunked loss, and backward."""
    layers = 2.0 * LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * MLP)
    attention = 2.0 * 2 * LAYERS * WIDTH * LENGTH / 2
    return 3 * layers + (2 + 2) * attention + 3 * 2.0 * vocab * WIDTH


def planned(*overrides: str, gpu: str | None = "RTX 3090", ranks: int = 4, **more: Any) -> Forecast:
    recipe = load_recipe("persianmind-7b", [FULL, *overrides])
    traced = flops_per_token(41_510) * LENGTH * recipe.train.micro_batch_size
    return forecast(
        recipe,
        traced_flops_per_micro_batch={LENGTH: traced},
        parameters=PAPER,
        layers=32,
        gpu=None if gpu is None else find_gpu(gpu),
        ranks=ranks,
        added_vocab=9_510,
        **more,
    )


def test_the_range_is_that_of_the_published_runs() -> None:
    """What 579 and 1,190 tokens/s are of an RTX 3090's 71 TFLOP/s."""
    paper, best = (one["tokens_per_s_per_gpu"] for one in REFERENCES)
    assert (paper, best) == (579, 1190)
    assert pytest.approx(paper, rel=0.01) == 2e9 / (960 * 3600)  # 2 billion tokens in 960 GPU-hours
    assert pytest.approx(best, rel=0.01) == 1024 * 2048 / 881 / 2  # fsdp_qlora's own table, two GPUs
    assert paper * flops_per_token(41_510) / 71e12 == pytest.approx(LEAST_UTILISATION, abs=0.01)
    assert best * flops_per_token(32_000) / 71e12 == pytest.approx(MOST_UTILISATION, abs=0.02)


def test_what_an_h100_did_lies_in_its_range() -> None:
    """4,339 tokens/s in the check of GPUs: the host launches kernels more slowly than it runs them."""
    found = planned("train.micro_batch_size=1", "train.global_batch_size=1", gpu="H100 SXM", ranks=1)
    assert found.high.tokens_per_s < 4339 < found.low.tokens_per_s
    assert any("what an H100 got" in text for text in found.assumptions)


def test_the_papers_run_lies_in_the_range() -> None:
    found = planned(*PAPERS_GRID)
    assert found.low.hours < found.hours < found.high.hours
    assert found.low.hours < 960 / 4 < 1.05 * found.high.hours
    assert found.high.tokens_per_s < found.tokens_per_s < found.low.tokens_per_s
    assert found.high.tokens_per_s / 4 == pytest.approx(579, rel=0.1)
    assert found.low.tokens_per_s / 4 == pytest.approx(1190, rel=0.1)
    assert found.low.kwh < found.kwh < found.high.kwh
    assert found.co2_low_kg < 232.38 < 1.05 * found.co2_high_kg
    assert {one["co2_kg"] for one in found.references} == {232.38, None}


def test_energy_and_co2_are_the_account_s_arithmetic() -> None:
    """Boards x hours x PUE x intensity, as docs/energy.md has it."""
    found = planned("energy.price_per_kwh=0.2", "energy.currency=EUR", *PAPERS_GRID)
    kwh = 4 * 0.35 * found.hours * 1.4
    assert found.kwh == pytest.approx(kwh)
    assert found.co2_kg == pytest.approx(kwh * 0.494)
    assert found.price == pytest.approx(kwh * 0.2) and found.currency == "EUR"
    assert planned().price is None


def test_without_a_country_co2_is_open_and_its_range_is_that_of_all() -> None:
    recipe = load_recipe("persianmind-7b", [FULL])
    found = forecast(
        recipe,
        traced_flops_per_micro_batch={LENGTH: flops_per_token(41_510) * LENGTH},
        parameters=PAPER,
        layers=32,
        gpu=find_gpu("RTX 3090"),
        ranks=4,
        added_vocab=9_510,
    )
    assert found.co2_kg is None
    assert found.co2_low_kg < 0.1 * found.kwh and found.co2_high_kg > found.kwh  # 20 g to 1.3 kg per kWh
    assert any("states neither energy.country_iso" in line for line in found.assumptions)


def test_an_unknown_country_is_said() -> None:
    recipe = load_recipe("persianmind-7b", [FULL])
    tree = recipe.model_dump(mode="json", exclude_unset=True)
    tree["energy"] = {"country_iso": "XXX"}
    found = forecast(
        Recipe.model_validate(tree),
        traced_flops_per_micro_batch={LENGTH: 1e14},
        parameters=PAPER,
        layers=32,
        gpu=find_gpu("RTX 3090"),
        ranks=4,
        added_vocab=0,
    )
    assert found.co2_kg is None and any(
        "'XXX' is not in codecarbon's table" in line for line in found.assumptions
    )


def test_hours_hold_everything_beside_the_steps() -> None:
    found = planned()
    phases = found.phases
    assert found.hours * 3600 == pytest.approx(phases.total_s)
    for name in ("prepare_s", "start_s", "evaluation_s", "checkpoints_s", "export_s"):
        assert getattr(phases, name) > 0, name
    plain = planned("export.enabled=false", "train.self_tests=false", "heldout.max_characters=1000")
    assert plain.phases.beside_s < 0.5 * phases.beside_s and plain.phases.steps_s == phases.steps_s
    with_samples = planned('evaluate.prompts=["a", "b"]')
    assert with_samples.phases.samples_s > 0.0 == phases.samples_s


def test_stages_in_epochs_are_named_as_not_counted() -> None:
    found = planned()
    assert found.tokens == 15_259 * 131_072  # 2 billion, in whole steps
    assert any(
        line.startswith("not counted") and "instruct-1, instruct-2" in line for line in found.assumptions
    )


def test_speed_follows_gpus_ranks_and_link() -> None:
    speed = planned().tokens_per_s
    assert planned(gpu="RTX 4090").tokens_per_s > 2 * speed  # 165 TFLOP/s to 71
    assert planned(ranks=8).tokens_per_s == pytest.approx(2 * speed, rel=0.05)
    slow = planned(link=find_link("Ethernet 1 Gbit/s"))
    assert slow.tokens_per_s < 0.95 * speed
    assert any("Ethernet 1 Gbit/s" in line for line in slow.assumptions)


def test_dequantising_costs_time() -> None:
    bf16, nf4 = planned(), planned("train.quantize=nf4")
    assert 1.01 < nf4.phases.steps_s / bf16.phases.steps_s < 1.1


def test_int8_matmuls_take_their_own_time_until_a_run_has_measured_it() -> None:
    """The base's matmuls are nearly all there is to do; a T4 has no bf16, and int8 gains nothing then."""
    traced = flops_per_token(41_510) * LENGTH
    over_base = 3 * 2.0 * LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * MLP) * LENGTH
    bf16, int8 = planned(), planned("train.quantize=int8", traced_int8_flops={LENGTH: over_base})
    speedup = int8_speedup(find_gpu("RTX 3090"), "bf16")
    assert speedup == pytest.approx(4 * 0.55 / 0.82)
    saved = over_base / traced * (1 - 1 / speedup)
    assert int8.phases.steps_s / bf16.phases.steps_s == pytest.approx(1 - saved, abs=0.02)
    assert any(line.startswith("int8: matmuls over the base 2.7 times") for line in int8.assumptions)
    run = MeasuredRun("runs/x", "persianmind-7b", 30e12, None, None)
    measured = [
        planned(measured=run, traced_int8_flops={LENGTH: flops}).phases.steps_s for flops in (0.0, over_base)
    ]
    assert measured[0] == measured[1]
    assert int8_speedup(find_gpu("T4"), "bf16") == 1.0


def test_a_gpu_without_bf16_is_refused_or_multiplies_fp32() -> None:
    with pytest.raises(UsageError, match=r"T4 multiplies no bf16; give train\.precision=fp32"):
        planned(gpu="T4")
    assert planned("train.precision=auto", gpu="T4").tokens_per_s < planned().tokens_per_s / 5


def test_a_measured_run_takes_the_place_of_the_range() -> None:
    measured = MeasuredRun("runs/x", "other", 0.4 * 71e12, watts=1200.0, beside_s=100.0)
    found = planned(measured=measured)
    assert found.tokens_per_s / 4 == pytest.approx(0.4 * 71e12 / flops_per_token(41_510), rel=0.02)
    assert found.high.hours / found.low.hours < 1.35 and "measured in runs/x" in found.assumptions[0]
    same = planned(measured=MeasuredRun("runs/x", "persianmind-7b", 0.4 * 71e12, watts=None, beside_s=100.0))
    assert same.hours * 3600 == pytest.approx(same.phases.steps_s + 100.0)


def test_without_a_gpu_the_cpu_of_this_machine_is_meant() -> None:
    found = planned(gpu=None, ranks=2)
    assert found.low.tokens_per_s > found.tokens_per_s > found.high.tokens_per_s > 0
    assert "per core" in found.assumptions[0] and "--gpu" in found.assumptions[0]
