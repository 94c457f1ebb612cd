"""The plan of whole recipes: counts to the last parameter, the verdict, and what the command prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from persianmind.cli import app
from persianmind.common.errors import BaseModelError, ConfigConflictError, UsageError
from persianmind.estimate.plan import RecipePlan, estimate_recipe
from persianmind.estimate.table import sections
from persianmind.model.adapted import build_adapted
from persianmind.recipe.loading import load_recipe
from tests.model.family_cases import make_family_base

LLAMA2_7B = 6_738_415_616
LORA = 19_988_480  # rank 8 on seven projections of 32 layers
EXACT = ["vocab.train_size=null", "vocab.new_tokens=9509"]  # and [PAD]
KEYS = {
    "parameters", "bytes", "peak_bytes", "host_peak_bytes", "fits", "headroom_bytes", "forecast",
    "suggestions",
}  # fmt: skip


@pytest.fixture(scope="module")
def paper() -> RecipePlan:
    return estimate_recipe("persianmind-7b", EXACT, 4, gpu="RTX 3090")


def test_the_paper_model_has_its_parameters_and_fits_four_24_gb_gpus(paper: RecipePlan) -> None:
    found = paper.as_json()
    added = 2 * 9_510 * 4096
    assert found["parameters"] == {
        "base": LLAMA2_7B,
        "added": added,
        "total": 6_816_321_536,
        "adapter": LORA,
        "trained": LORA + added,
    }
    assert found["batch"]["micro_batch_size"] == load_recipe("persianmind-7b").train.micro_batch_size
    assert found["batch"]["gradient_accumulation_steps"] == 16
    assert found["fits"] is True and found["headroom_bytes"] > 1e9
    assert found["gradient_checkpointing"] == "selective"
    assert found["headroom_bytes"] == found["usable_bytes"] - found["peak_with_reserve_bytes"]


def test_an_int8_base_has_hours_of_its_own(paper: RecipePlan) -> None:
    found = estimate_recipe("persianmind-7b", [*EXACT, "train.quantize=int8"], 4, gpu="RTX 3090").as_json()
    assert any(line.startswith("int8: matmuls") for line in found["forecast"]["assumptions"])
    assert found["forecast"]["hours"] < 0.7 * paper.as_json()["forecast"]["hours"]


def test_bytes_add_up_and_every_key_of_the_contract_is_there(paper: RecipePlan) -> None:
    found = json.loads(json.dumps(paper.as_json()))
    assert found.keys() >= KEYS
    assert sum(found["bytes"].values()) == found["peak_bytes"] == max(found["phase_bytes"].values())
    assert found["peak_with_reserve_bytes"] == found["peak_bytes"] + sum(found["reserve_bytes"].values())
    assert found["host_peak_bytes"] == max(found["host_bytes"].values())
    assert {stage["name"] for stage in found["stages"]} == {"pretrain", "instruct-1", "instruct-2"}
    assert found["stages"][0]["steps"] == 15_259 and found["stages"][1]["epochs"] == {"translated": 2}
    forecast = found["forecast"]
    for key in ("tokens_per_s", "hours", "kwh", "co2_low_kg", "co2_high_kg", "low", "high"):
        assert forecast[key] is not None, key
    assert forecast["co2_kg"] is None  # the recipe states no grid: a span
    co2 = dict(dict(sections(paper))["time, energy, money"])["CO2"]
    span = f"{forecast['co2_low_kg']:,.3g} to {forecast['co2_high_kg']:,.3g} kg"
    assert co2 == f"{span}, on the cleanest to the dirtiest country's grid: its own is not known"


@pytest.mark.more
def test_what_is_said_to_be_the_largest_fits_and_one_more_does_not(paper: RecipePlan) -> None:
    size = paper.largest().micro_batch_size
    assert 1 < size < 16

    def fits(micro_batch_size: int) -> bool:
        changed = [*EXACT, f"train.micro_batch_size={micro_batch_size}"]
        return estimate_recipe("persianmind-7b", changed, 4, gpu="RTX 3090").fits

    assert fits(size) and not fits(size + 1)
    assert paper.largest().seq_len == 4096  # as long as the base allows


TOO_MUCH = ["train.micro_batch_size=16", "train.gradient_checkpointing=off"]
SMALL = ["base=HuggingFaceTB/SmolLM2-135M", "data.seq_len=512", *TOO_MUCH]


@pytest.mark.parametrize(
    ("changed", "memory_gb", "count"),
    [(SMALL, 3, 1), pytest.param(TOO_MUCH, 24, 3, marks=pytest.mark.more)],
    ids=["135M", "7B"],
)
def test_a_recipe_that_does_not_fit_says_so_and_its_suggestions_fit(
    changed: list[str], memory_gb: float, count: int
) -> None:
    plan = estimate_recipe("persianmind-7b", changed, 2, memory_gb=memory_gb)
    assert not plan.fits and plan.headroom_bytes < 0 and len(plan.suggestions) == 3
    for suggestion in plan.suggestions[:count]:
        other = estimate_recipe("persianmind-7b", [*changed, *suggestion.overrides], 2, memory_gb=memory_gb)
        assert other.fits and other.headroom_bytes == suggestion.headroom_bytes
        assert suggestion.time_ratio > 0.9
    assert len({frozenset(one.overrides) for one in plan.suggestions}) == 3


def test_a_7b_on_12_gb_is_sent_to_4_bits() -> None:
    plan = estimate_recipe("persianmind-7b", [], 1, gpu="RTX 3060")
    assert plan.suggestions[0].overrides == ("train.quantize=nf4",)
    nothing = estimate_recipe("persianmind-7b", [], 1, memory_gb=4)
    assert not nothing.fits and nothing.suggestions == ()


def test_the_paper_way_trains_whole_tables() -> None:
    plan = estimate_recipe("persianmind-7b", [*EXACT, "vocab.train_embeddings=all"], 4)
    assert plan.estimate.counts.trained == LORA + 2 * 41_510 * 4096 == 360_038_400
    gpu = plan.planner.target.gpu
    assert gpu is not None and gpu.name == "RTX 3090"  # a 7B is not for a CPU


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)


def test_the_command_prints_one_object_and_a_table() -> None:
    done = command("tiny", "--ranks", "2", "--json")
    assert done.exit_code == 0
    found = json.loads(done.output)
    assert found["batch"]["gradient_accumulation_steps"] == 2 and found["gpu"] is None
    assert found["text"].endswith("as an embedding needs to be trained")
    shown = command("tiny", "--ranks", "2")
    for words in ("fits:", "text: ", "base weights", "instruct-2", "tokens/s", "largest that fits"):
        assert words in shown.output, words


def test_a_slower_link_takes_longer_and_an_unknown_one_is_one_line() -> None:
    fast, slow = (
        estimate_recipe("tiny", [], 2, gpu="RTX 3090", link=name).forecast.phases.steps_s
        for name in ("PCIe 4 x16", "Ethernet 1 Gbit/s")
    )
    assert slow > fast
    with pytest.raises(UsageError, match="no link 'PCIe 4x12'"):
        command("tiny", "--gpu", "RTX 3090", "--link", "PCIe 4x12")


def test_the_engines_json_is_read(tmp_path: Path) -> None:
    """Buckets are as large as it says; a contradiction is one line."""
    path = tmp_path / "ds.json"
    path.write_text('{"zero_optimization": {"stage": 2, "reduce_bucket_size": 3e6}}', encoding="utf-8")
    plan = estimate_recipe("tiny", ["train.global_batch_size=2"], 2, engine_config=path)
    assert plan.estimate.peak.bytes["reduce_buckets"] in (0, 3_000_000 * 4)
    path.write_text('{"train_micro_batch_size_per_gpu": 7}', encoding="utf-8")
    with pytest.raises(ConfigConflictError, match=r"train\.micro_batch_size"):
        estimate_recipe("tiny", [], 2, engine_config=path)


@pytest.mark.parametrize("name", ["phi", "gemma2", "granitemoe"])
def test_bases_of_other_families_are_planned(tmp_path: Path, name: str) -> None:
    base = make_family_base(tmp_path / "base", name)
    plan = estimate_recipe("tiny", [f"base={base}"], 2)
    recipe = load_recipe("tiny", ["train.precision=fp32"])
    built = build_adapted(base, recipe, [[0]] * plan.vocabulary.high, plan.vocabulary.base)
    counts = plan.estimate.counts
    assert counts.total + counts.adapter == sum(value.numel() for value in built.parameters())
    assert ("mixture of experts" in plan.adapted) == (name == "granitemoe")


def test_mistakes_are_one_line() -> None:
    with pytest.raises(BaseModelError, match=r"download its config\.json"):
        estimate_recipe("tiny", ["base=someone/some-model"], 2)
    with pytest.raises(UsageError, match="RTX 3090"):
        estimate_recipe("tiny", [], 2, gpu="RTX 3099")


def test_memory_is_that_of_the_longest_stage_and_time_that_of_each() -> None:
    """A stage at 2,048 among stages at 512, against plans of one length each."""
    base = ["base=HuggingFaceTB/SmolLM2-135M", "train.gradient_checkpointing=selective"]
    stages = (
        "stages=[{{name: a, sources: {{persian: 1.0}}, tokens: 2097152{}}}, "
        "{{name: b, sources: {{persian: 1.0}}, tokens: 2097152}}]"
    )

    def plan(*overrides: str) -> RecipePlan:
        return estimate_recipe("persianmind-7b", [*base, *overrides], 2, gpu="RTX 3090")

    mixed = plan(stages.format(", seq_len: 512"))
    long, short = plan(stages.format("")), plan(stages.format(""), "data.seq_len=512")
    assert mixed.estimate.peak == long.estimate.peak != short.estimate.peak
    assert mixed.host == long.host
    per_step = mixed.recipe.train.global_batch_size
    assert [(one.seq_len, one.steps, one.tokens) for one in mixed.stages] == [
        (512, 2097152 // (512 * per_step), 2097152),
        (2048, 2097152 // (2048 * per_step), 2097152),
    ]
    steps_s = [one.forecast.phases.steps_s for one in (mixed, long, short)]
    assert steps_s[0] == pytest.approx((steps_s[1] + steps_s[2]) / 2)
    assert abs(steps_s[1] - steps_s[2]) > 1e-3 * steps_s[1], "the control: a length has a time of its own"
    assert mixed.forecast.tokens_per_s == pytest.approx(2 * 2097152 / steps_s[0])
    assert mixed.disk.shards == long.disk.shards
    found = mixed.as_json()
    assert found["batch"]["seq_len"] == 2048 and found["stages"][0]["seq_len"] == 512
    assert mixed.largest().seq_len == long.largest().seq_len


def test_where_a_stage_is_too_long_its_own_key_is_suggested() -> None:
    stages = (
        "stages=[{name: a, sources: {persian: 1.0}, tokens: 4096}, "
        "{name: b, sources: {persian: 1.0}, tokens: 4096, seq_len: 8192}]"
    )
    base = ["base=HuggingFaceTB/SmolLM2-135M", "data.seq_len=512", "train.quantize=nf4"]
    tight = [*base, "train.gradient_checkpointing=full", stages]
    plan = estimate_recipe("persianmind-7b", tight, 2, memory_gb=2.2)
    assert not plan.fits
    assert any(one.startswith("stages.1.seq_len=") for way in plan.suggestions for one in way.overrides)
    assert estimate_recipe("persianmind-7b", [*tight, "stages.1.seq_len=4096"], 2, memory_gb=2.2).fits
    other = estimate_recipe("persianmind-7b", [*tight, "data.seq_len=256"], 2, memory_gb=2.2)
    assert not other.fits, "the control: the length of the other stage changes nothing"
