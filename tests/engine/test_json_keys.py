"""The table of DeepSpeed's JSON, key by key: what it says, and what DeepSpeed gets."""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import ConfigConflictError, RecipeError
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.json_keys import FIXED_KEYS, FREE_KEYS, FixedKey, FreeKey, decided_keys
from persianmind.engine.deepspeed.json_off import IGNORED_KEYS, OFF_KEYS
from persianmind.recipe.loading import load_recipe
from tests.engine.json_cases import (
    AUTOS,
    FP16_AUTO,
    HF_TRAINER,
    LLAMA_FACTORY,
    RECIPE,
    SCHEDULER,
    TRAINED,
    at,
)
from tests.support.launch import ROOT

TINY = load_recipe("tiny", RECIPE)
# What the recipe above makes of every key it decides, written out; none of them is DeepSpeed's default.
DECIDED: dict[str, tuple[Any, Any]] = {  # place -> (right, wrong)
    "train_batch_size": (2, 3),
    "train_micro_batch_size_per_gpu": (1, 2),
    "gradient_accumulation_steps": (1, 4),
    "gradient_clipping": (0.05, 1.0),
    "bf16.enabled": (False, True),
    "communication_data_type": ("fp32", "fp16"),
    "optimizer.params.lr": (5e-3, "5e-3"),
    "optimizer.params.betas": ([0.7, 0.9], [0.7]),
    "optimizer.params.eps": (1e-3, 1e-8),
    "optimizer.params.weight_decay": (0.3, False),
}
FREE = {place: key for place, key in FREE_KEYS.items() if isinstance(key, FreeKey)}
FIXED = {place: key for place, key in FIXED_KEYS.items() if isinstance(key, FixedKey)}


def resolved(tmp_path: Path, stated: Any, *overrides: str, ranks: int = 2) -> dict[str, Any]:
    path = tmp_path / "mine.json"
    path.write_text(stated if isinstance(stated, str) else json.dumps(stated), encoding="utf-8")
    return resolve_deepspeed_config(path, load_recipe("tiny", [*RECIPE, *overrides]), ranks)


def refused(tmp_path: Path, stated: Any, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        resolved(tmp_path, stated, *overrides)
    line = str(caught.value)
    assert "\n" not in line and "mine.json" in line
    return line


def got(config: dict[str, Any], place: str) -> Any:
    return reduce(lambda node, name: node.get(name, {}), place.split("."), config)


def test_the_table_here_is_the_table_there() -> None:
    assert DECIDED.keys() == decided_keys(TINY, 2).keys()
    everything = [*DECIDED, *FIXED, *FREE, *IGNORED_KEYS, *OFF_KEYS]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize("place", DECIDED)
def test_the_recipe_decides(tmp_path: Path, place: str) -> None:
    right, wrong = DECIDED[place]
    for stated in ({}, at(place, "auto"), at(place, right)):
        assert got(resolved(tmp_path, stated), place) == right
    with pytest.raises(ConfigConflictError):
        resolved(tmp_path, at(place, wrong))
    line = refused(tmp_path, at(place, wrong))
    assert f"{place}={json.dumps(wrong)}" in line and "train." in line


@pytest.mark.parametrize("place", FIXED)
def test_one_value_works(tmp_path: Path, place: str) -> None:
    key = FIXED[place]
    left_out = {} if key.is_default else key.value
    assert got(resolved(tmp_path, {}), place) == got(resolved(tmp_path, at(place, "auto")), place) == left_out
    assert got(resolved(tmp_path, at(place, key.value)), place) == key.value
    wrong = not key.value if isinstance(key.value, bool) else 3 if place.endswith("stage") else "OneBitAdam"
    line = refused(tmp_path, at(place, wrong))
    assert place in line and json.dumps(wrong) in line and f"write {json.dumps(key.value)}" in line


@pytest.mark.parametrize("place", FREE)
def test_people_choose(tmp_path: Path, place: str) -> None:
    default = FREE[place].default
    assert got(resolved(tmp_path, {}), place) == got(resolved(tmp_path, at(place, "auto")), place) == default
    if isinstance(default, bool):
        assert got(resolved(tmp_path, at(place, not default)), place) is (not default)
        wrong = [0, "true", None]
    else:
        found = got(resolved(tmp_path, at(place, 2e8)), place)
        assert found == 200_000_000 and isinstance(found, int)
        wrong = [0, -1, 1.5, True, "2e8", None, float("nan"), float("inf")]
    for value in wrong:
        assert place in refused(tmp_path, at(place, value))


@pytest.mark.parametrize("place", OFF_KEYS)
def test_what_is_not_done_here_may_stand_there_turned_off(tmp_path: Path, place: str) -> None:
    plain = resolved(tmp_path, {})
    for off in (False, None, {}, {"enabled": False, "min_loss_scale": 1e-10}, {"device": "none"}):
        assert resolved(tmp_path, at(place, off)) == plain
    for on in (True, {"enabled": True}, {"device": "cpu"}, {"type": "WarmupLR"}, 1):
        line = refused(tmp_path, at(place, on))
        assert f"{place} cannot be used here: {OFF_KEYS[place]}; take it out" in line


@pytest.mark.parametrize("place", IGNORED_KEYS)
def test_what_nothing_depends_on(tmp_path: Path, place: str) -> None:
    assert resolved(tmp_path, at(place, True)) == resolved(tmp_path, {})


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"gradient_cliping": 1.0}, "'gradient_cliping' (did you mean 'gradient_clipping'?)"),
        ({"optimizer": {"betas": [0.9, 0.95]}}, "(did you mean 'optimizer.params.betas'?)"),
        ({"zero_optimization": {"reduce_bucket": 1}}, "'zero_optimization.reduce_bucket_size'?"),
        ({"zero_optimization.stage": 3}, "unknown key 'zero_optimization.stage'"),
        ({"zero_optimization": {"a.b": 3}}, "unknown key 'zero_optimization.a.b'"),
        ({"zero_optimization": True}, "zero_optimization is a section"),
        ({"optimizer": None}, "optimizer is a section"),
        ('{"gradient_clipping": 0.05, "gradient_clipping": 9}', "'gradient_clipping' stands there twice"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "is a JSON object"),
        ("{", "not valid JSON"),
        ({**AUTOS, "scheduler": SCHEDULER}, "train.schedule"),
        ({**HF_TRAINER, "scheduler": SCHEDULER}, "train.warmup_ratio"),
        ({"fp16": {**FP16_AUTO, "enabled": True}}, "train.precision in the recipe is bf16, fp32 or auto"),
        ({"fp16": {"min_loss_scale": 1e-10}}, "train.precision"),
        (
            {"optimizer": {"type": "OneBitAdam", "params": {"freeze_step": 400}}},
            "optimizer.params.freeze_step",
        ),
        ({"optimizer": {"type": "OneBitAdam", "params": {"lr": "auto"}}}, '"OneBitAdam"'),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}, "train.quantize=nf4"),
        ({"zero_optimization": {"stage": 3}}, "it is built on ZeRO stage 2"),
        (LLAMA_FACTORY, "round_robin_gradients=true"),
    ],
)
def test_one_line_each(tmp_path: Path, stated: Any, said: str) -> None:
    assert said in refused(tmp_path, stated)


@pytest.mark.parametrize("name", ["hf_trainer", "tiny_loss_scale"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trainers_files_become_the_recipes(tmp_path: Path, name: str, precision: str) -> None:
    found = resolved(tmp_path, TRAINED[name], f"train.precision={precision}")
    expected = resolved(tmp_path, {}, f"train.precision={precision}")
    for place in (*DECIDED, "optimizer.type", "optimizer.params.torch_adam", "zero_optimization.stage"):
        assert got(found, place) == got(expected, place)
    assert found["bf16"]["enabled"] is (precision == "bf16") and found["steps_per_print"] == 2000
    assert "fp16" not in found and "auto" not in json.dumps(found)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_what_a_run_keeps_may_be_given_again(tmp_path: Path, ranks: int) -> None:
    kept = resolved(tmp_path, {}, "train.global_batch_size=4", ranks=ranks)
    assert kept["train_batch_size"] == 6 if ranks == 3 else 4  # 4 sequences over 3 ranks do not divide
    again = {**kept, "checksum": "0"}
    assert resolved(tmp_path, again, "train.global_batch_size=4", ranks=ranks) == kept


def test_the_page_lists_every_key() -> None:
    page = (ROOT / "docs" / "deepspeed.md").read_text(encoding="utf-8")
    listed = [
        word
        for line in page.splitlines()
        if line.startswith("| `")
        for word in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    assert sorted(listed) == sorted([*DECIDED, *FIXED, *FREE, *IGNORED_KEYS, *OFF_KEYS])
