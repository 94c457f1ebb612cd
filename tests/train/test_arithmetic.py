"""Config resolution, schedules, stage lengths, precision: the parts that need no engine."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from persianmind.checks import device
from persianmind.common.device.choice import DeviceChoice
from persianmind.common.errors import ConfigConflictError, RecipeError
from persianmind.data.build.priority import build_order
from persianmind.data.read.order import rank_samples
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.schedule import gradient_accumulation_steps, group_rates, learning_rate_ratio
from persianmind.estimate.disk import disk_bytes
from persianmind.recipe.loading import known_recipes, load_recipe
from persianmind.run.folder import RunFolder
from persianmind.train.stages import log_passes, plan_stages, tokens_after
from tests.support.launch import ROOT, ZERO2
from tests.support.log import logged

SHIPPED = sorted((ROOT / "ds_configs").glob("*.json"))


def test_every_shipped_config_resolves_without_autos() -> None:
    assert len(SHIPPED) == 2
    for path in SHIPPED:
        for ranks in (1, 2, 4):
            config = resolve_deepspeed_config(path, load_recipe("tiny", ["train.precision=bf16"]), ranks)
            assert "auto" not in json.dumps(config)
            assert config["train_batch_size"] == 4
            assert config["gradient_accumulation_steps"] * ranks == 4
            assert config["bf16"]["enabled"] is True


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("gradient_clipping", 5.0, "train.max_grad_norm"),
        ("optimizer.params.lr", 1.0, "train.learning_rate"),
        ("bf16.enabled", True, "train.precision"),
        ("gradient_accumulation_steps", 7, "over 2 ranks"),
    ],
)
def test_contradictions_name_both_places(tmp_path: Path, place: str, value: object, named: str) -> None:
    config = json.loads(ZERO2.read_text(encoding="utf-8"))
    node = config
    for key in place.split(".")[:-1]:
        node = node[key]
    node[place.rsplit(".", 1)[-1]] = value
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigConflictError) as caught:
        resolve_deepspeed_config(path, load_recipe("tiny"), 2)
    assert place in str(caught.value) and named in str(caught.value) and "mine.json" in str(caught.value)


def test_accumulation_is_that_of_the_rank_with_the_most() -> None:
    assert [gradient_accumulation_steps(12, 2, ranks) for ranks in (1, 2, 3, 6)] == [6, 3, 2, 1]
    assert [gradient_accumulation_steps(12, 2, ranks) for ranks in (4, 5, 7, 24)] == [2, 2, 1, 1]


@pytest.mark.parametrize("ranks", range(1, 9))
@pytest.mark.parametrize("name", known_recipes())
def test_every_shipped_recipe_resolves_on_1_to_8_imitated_gpus(name: str, ranks: int) -> None:
    recipe = load_recipe(name, ["train.precision=bf16"])
    for path in SHIPPED:
        config = resolve_deepspeed_config(path, recipe, ranks)
        numbers = [config[k] for k in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")]
        assert config["train_batch_size"] == numbers[0] * numbers[1] * ranks  # or DeepSpeed refuses it
        assert config["train_batch_size"] >= recipe.train.global_batch_size
    size = recipe.train.global_batch_size
    parts = [rank_samples(size * 5, size, rank, ranks) for rank in range(ranks)]
    assert sorted(sample for part in parts for sample in part) == list(range(size * 5, size * 6))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_rates_warm_up_then_fall_to_the_floor(schedule: str) -> None:
    ratios = [learning_rate_ratio(s, 100, schedule=schedule, warmup_ratio=0.1, floor=0.1) for s in range(100)]
    assert ratios[:10] == sorted(ratios[:10]) and ratios[10] == 1.0 and 0 < ratios[0] < 0.1
    assert ratios[10:] == sorted(ratios[10:], reverse=True) and 0.1 <= ratios[-1] < 0.15
    assert (ratios[80] == 1.0) == (schedule == "wsd")


def test_a_constant_rate_and_warm_up_in_steps() -> None:
    rates = {"schedule": "constant", "warmup_ratio": 0.5, "floor": 0.1}
    ratios = [learning_rate_ratio(s, 100, warmup_steps=4, **rates) for s in range(100)]
    assert ratios[:4] == [0.2, 0.4, 0.6, 0.8] and {*ratios[4:]} == {1.0}
    assert learning_rate_ratio(40, 100, **rates) < 1.0  # the control: half the stage warms up
    assert learning_rate_ratio(0, 100, warmup_steps=0, **rates) == 1.0
    recipe = load_recipe("tiny", ["train.warmup_steps=2", "train.schedule=constant"])
    assert group_rates(recipe.train, recipe.adapter, recipe.stages[0], 2, 16)["adapters_a"] == 5e-3


def test_parts_a_stage_does_not_train_have_rate_zero() -> None:
    recipe = load_recipe("tiny", ["stages.0.trained=[embeddings]", "adapter.lora_plus_ratio=4"])
    rates = group_rates(recipe.train, recipe.adapter, recipe.stages[0], 5, 12)
    assert rates["adapters_a"] == rates["adapters_b"] == 0.0 < rates["embeddings"]
    rates = group_rates(recipe.train, recipe.adapter, recipe.stages[1], 5, 6)
    assert rates["adapters_b"] == 4 * rates["adapters_a"] > 0


def test_stage_lengths_in_tokens_and_epochs() -> None:
    recipe = load_recipe(
        "tiny", ["stages.1={name: e, sources: {poems: 1.0, messages: 1.0}, epochs: {poems: 2}}"]
    )
    sequences = {"poems": 10, "messages": 5, "english": 1, "translate": 1, "interpret": 1}
    plans = plan_stages(recipe, sequences)
    assert [plan.steps for plan in plans] == [16, 10, 7]  # 16384/1024; ceil(2*10/0.5/4); 7168/1024
    assert [plan.first_step for plan in plans] == [0, 16, 26]
    with pytest.raises(RecipeError, match="'english' has no sequences"):
        plan_stages(recipe, {**sequences, "english": 0})


def test_a_stage_in_steps_has_so_many_everywhere() -> None:
    """The loop, the plan, the forecast, the disk and the builder count from the same amount."""
    sources = "{poems: 0.6, messages: 0.2, english: 0.2}"
    in_steps, in_tokens = (
        load_recipe("tiny", [f"stages.0={{name: pretrain, sources: {sources}, {length}}}"])
        for length in ("steps: 5", "tokens: 5120")
    )
    sequences = dict.fromkeys(in_steps.sources, 100)
    assert plan_stages(in_steps, sequences)[0].steps == 5
    assert [in_steps.tokens_of(stage) for stage in in_steps.stages] == [5120, 7168, 7168]
    assert build_order(in_steps) == build_order(in_tokens)
    counts = {"trained": 1000, "exported": 1000, "vocab_size": 1424}
    assert disk_bytes(in_steps, **counts) == disk_bytes(in_tokens, **counts)
    with pytest.raises(RecipeError, match="exactly one of `tokens`, `steps` and `epochs`"):
        load_recipe("tiny", ["stages.0.steps=5"])


def test_a_stage_of_another_length_has_steps_tokens_and_counts_of_its_own() -> None:
    recipe = load_recipe(
        "tiny",
        [
            "stages.1.seq_len=128",
            "stages.2={name: e, sources: {english: 1.0}, epochs: 2, seq_len: 128}",
        ],
    )
    counts = {"poems": 100, "messages": 100, "english": 10, "english@128": 22, "translate@128": 9}
    plans = plan_stages(recipe, counts)
    assert [plan.steps for plan in plans] == [16, 14, 11]  # 7168 / (4 * 128); 2 * 22 / 4
    left = [tokens_after(recipe, plans, step) for step in (0, 15, 16, 18, 30, 41)]
    assert left == [16_384 + 7168 + 5632, 1024 + 7168 + 5632, 7168 + 5632, 6144 + 5632, 5632, 0]
    samples = [stage.samples for stage in build_order(recipe).stages]
    assert samples == [64, 56, None]
    assert [*build_order(recipe).stages[1].ratios] == ["translate@128", "english@128"]
    with logged(logging.INFO) as lines:
        log_passes(recipe, plans, counts)
    assert lines[1].startswith("stage instruct-1: passes over translate 4.98 times, english 0.509 times")
    with pytest.raises(RecipeError, match="the source 'translate' has no sequences"):
        plan_stages(recipe, {**counts, "translate@128": 0})
    with pytest.raises(KeyError, match="translate@128"):  # the control: counts of another length do not serve
        plan_stages(recipe, {"poems": 1, "messages": 1, "english": 10, "translate": 9})


def test_an_epoch_is_a_pass_over_the_source_that_is_named() -> None:
    """14 instructions among much text, two epochs: each is shown twice, not once for each record of all
    sources."""
    stage = "stages.1={name: e, sources: {poems: 0.2, messages: 0.8}, epochs: {poems: 2}}"
    recipe = load_recipe("tiny", [stage, "train.global_batch_size=1"])
    sequences = {"poems": 14, "messages": 700, "english": 1, "translate": 1, "interpret": 1}
    plan = plan_stages(recipe, sequences)[1]
    assert plan.steps == 140 and plan.steps * 0.2 / sequences["poems"] == 2
    with logged(logging.INFO) as lines:
        log_passes(recipe, [plan], sequences)
    assert lines == ["stage e: passes over poems 2 times, messages 0.16 times"]
    with logged(logging.INFO) as lines:
        log_passes(recipe, [plan], {**sequences, "poems": 5, "messages": None})
    assert "passes over poems 5.6 times" in lines[0] and "more than 4 times" in lines[1]
    with pytest.raises(RecipeError, match=r"several sources: say which one .* epochs: \{poems: 2\}"):
        load_recipe("tiny", [stage.replace("{poems: 2}", "2")])
    with pytest.raises(RecipeError, match="names one of its own sources"):
        load_recipe("tiny", [stage.replace("{poems: 2}", "{english: 2}")])


def test_precision_is_what_the_machine_multiplies_and_stays_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "current_device", lambda: DeviceChoice("cpu", "as a test says"))
    for flags, expected in (("avx2 amx_bf16", "bf16"), ("fma avx512_bf16", "bf16"), ("fma avx2", "fp32")):
        monkeypatch.setattr(device, "cpu_flags", lambda flags=flags: frozenset(flags.split()))
        assert device.machine_precision() == expected
    recipe = load_recipe("tiny", ["train.precision=auto"])
    RunFolder(tmp_path / "run").claim(load_recipe("tiny", ["train.precision=bf16"]))
    monkeypatch.setattr(device, "machine_precision", lambda: "fp32")
    assert device.resolve_precision(recipe, RunFolder(tmp_path / "run")).train.precision == "bf16"
    assert device.resolve_precision(recipe, RunFolder(tmp_path / "new")).train.precision == "fp32"
