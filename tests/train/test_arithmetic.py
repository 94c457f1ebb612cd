"""Config resolution, schedules, stage lengths, the run log: the parts that need no engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from persianmind.checks.device import machine_precision, resolve_precision
from persianmind.common.errors import ConfigConflictError, RecipeError
from persianmind.engine.deepspeed.config import accumulation_steps, resolve_deepspeed_config
from persianmind.engine.schedule import group_rates, learning_rate_ratio
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import claim_run_folder
from persianmind.run.identity import first_difference
from persianmind.run.log import RunLog, add_evaluation, read_results, update_results
from persianmind.train.stages import plan_stages
from tests.support.launch import ROOT, ZERO2

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


def test_an_auto_nobody_decides_is_an_error(tmp_path: Path) -> None:
    config = json.loads(ZERO2.read_text(encoding="utf-8"))
    config["zero_optimization"]["reduce_bucket_size"] = "auto"
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"zero_optimization\.reduce_bucket_size"):
        resolve_deepspeed_config(path, load_recipe("tiny"), 2)


def test_ranks_that_do_not_divide_are_told_which_do() -> None:
    recipe = load_recipe("tiny", ["train.global_batch_size=12", "train.micro_batch_size=2"])
    assert [accumulation_steps(recipe, ranks) for ranks in (1, 2, 3, 6)] == [6, 3, 2, 1]
    with pytest.raises(RecipeError, match="use 1, 2, 3, 6 ranks"):
        accumulation_steps(recipe, 4)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_rates_warm_up_then_fall_to_the_floor(schedule: str) -> None:
    shares = [learning_rate_ratio(s, 100, schedule=schedule, warmup_ratio=0.1, floor=0.1) for s in range(100)]
    assert shares[:10] == sorted(shares[:10]) and shares[10] == 1.0 and 0 < shares[0] < 0.1
    assert shares[10:] == sorted(shares[10:], reverse=True) and 0.1 <= shares[-1] < 0.15
    assert (shares[80] == 1.0) == (schedule == "wsd")


def test_parts_a_stage_does_not_train_have_rate_zero() -> None:
    recipe = load_recipe("tiny", ["stages.0.trained=[embeddings]", "adapter.lora_plus_ratio=4"])
    rates = group_rates(recipe, recipe.stages[0], 5, 12)
    assert rates["adapters_a"] == rates["adapters_b"] == 0.0 < rates["embeddings"]
    rates = group_rates(recipe, recipe.stages[1], 5, 6)
    assert rates["adapters_b"] == 4 * rates["adapters_a"] > 0


def test_stage_lengths_in_tokens_and_epochs() -> None:
    recipe = load_recipe("tiny", ["stages.1={name: e, sources: {poems: 1.0, messages: 1.0}, epochs: 2}"])
    sequences = {"poems": 10, "messages": 5, "english": 1, "translate": 1, "interpret": 1}
    plans = plan_stages(recipe, sequences)
    assert [plan.steps for plan in plans] == [16, 8, 7]  # 16384/1024; ceil(2*15/4); 7168/1024
    assert [plan.first_step for plan in plans] == [0, 16, 24]
    with pytest.raises(RecipeError, match="'english' has no sequences"):
        plan_stages(recipe, {**sequences, "english": 0})


def test_rewind_keeps_each_step_once_and_loses_no_line(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step}) for step in (1, 2, 3, 4)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo', encoding="utf-8")
    RunLog(tmp_path, active=False).rewind(2)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5
    RunLog(tmp_path, active=True).rewind(2)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:2]
    assert (tmp_path / "metrics.discarded.jsonl").read_text().splitlines() == [*lines[2:], '{"step": 5, "lo']


def test_results_are_replaced_row_by_row(tmp_path: Path) -> None:
    add_evaluation(tmp_path, {"stage": "base", "fa": {"bits_per_byte": 2.0}})
    add_evaluation(tmp_path, {"stage": "one", "fa": {"bits_per_byte": 1.5}})
    add_evaluation(tmp_path, {"stage": "one", "fa": {"bits_per_byte": 1.4}})
    update_results(tmp_path, finished=True)
    results = read_results(tmp_path)
    assert [sequence["fa"]["bits_per_byte"] for sequence in results["perplexity"]] == [2.0, 1.4]
    assert results["finished"] is True


def test_precision_is_what_the_machine_multiplies_and_stays_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persianmind.checks import device as precision

    monkeypatch.setattr(precision, "has_gpu", lambda: False)
    for flags, expected in (("avx2 amx_bf16", "bf16"), ("fma avx512_bf16", "bf16"), ("fma avx2", "fp32")):
        (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")
        assert machine_precision(tmp_path / "cpuinfo") == expected
    recipe = load_recipe("tiny", ["train.precision=auto"])
    claim_run_folder(tmp_path / "run", load_recipe("tiny", ["train.precision=bf16"]))
    monkeypatch.setattr(precision, "machine_precision", lambda: "fp32")
    assert resolve_precision(recipe, tmp_path / "run").train.precision == "bf16"
    assert resolve_precision(recipe, tmp_path / "new").train.precision == "fp32"


def test_first_difference_names_the_place() -> None:
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1}}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == ("a.b", 1, 2)
    assert first_difference({"a": 1}, {"a": 1, "c": 3}) == ("c", None, 3)
