"""Every callback's state goes through a checkpoint's JSON to the bit, and may be missing from one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest

from persianmind.energy.budget import Budget
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.train import callbacks as package
from persianmind.train.callbacks.base import Callback
from persianmind.train.callbacks.best import BestCallback
from persianmind.train.callbacks.budget import BudgetCallback
from persianmind.train.callbacks.energy import EnergyCallback
from persianmind.train.callbacks.estimate import EstimateCallback
from persianmind.train.callbacks.evaluate import EvaluateCallback
from persianmind.train.callbacks.forgetting import ForgettingCallback
from persianmind.train.callbacks.log import LogCallback
from persianmind.train.callbacks.new_tokens import NewTokenCallback
from persianmind.train.callbacks.plateau import PlateauCallback
from persianmind.train.callbacks.progress import ProgressCallback
from persianmind.train.callbacks.samples import SampleCallback
from persianmind.train.callbacks.save import SaveCallback
from persianmind.train.callbacks.spikes import SpikeCallback
from persianmind.train.callbacks.suites import SuiteCallback
from persianmind.train.callbacks.watchdog import Watchdog

RECIPE = load_recipe("tiny", ["train.spike_sigma=6", "train.spike_window=4", "stages.0.plateau_steps=2"])
STATEFUL: dict[str, Callable[[Recipe], Callback]] = {
    "spikes": lambda recipe: SpikeCallback(recipe.train),
    "plateau": lambda recipe: PlateauCallback(recipe.stages),
}
STATELESS: list[Callback] = [
    BudgetCallback(Budget(None)),
    EnergyCallback(),
    EvaluateCallback(RECIPE),
    EstimateCallback(Budget(None), EvaluateCallback(RECIPE), SuiteCallback(RECIPE), SampleCallback(RECIPE)),
    ForgettingCallback(RECIPE),
    NewTokenCallback(RECIPE, EvaluateCallback(RECIPE)),
    SuiteCallback(RECIPE),
    ProgressCallback(Budget(None)),
    SampleCallback(RECIPE),
]


def used(name: str) -> Callback:
    callback = STATEFUL[name](RECIPE)
    assert isinstance(callback, SpikeCallback | PlateauCallback)
    for step in range(9):
        callback.add(1 / (step + 3), math.pi * (step + 1))
    if isinstance(callback, PlateauCallback):
        callback.ended["pretrain"] = 7
    return callback


@pytest.mark.parametrize("name", STATEFUL)
def test_state_goes_through_json_to_the_bit(name: str) -> None:
    before, after = used(name), STATEFUL[name](RECIPE)
    assert before.state_dict() != after.state_dict()
    after.load_state_dict(json.loads(json.dumps(before.state_dict(), allow_nan=False)))
    assert after.state_dict() == before.state_dict()
    assert list(after.losses) == list(before.losses)  # type: ignore[attr-defined]
    assert after.losses.maxlen == before.losses.maxlen  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("state", [{}, {"losses": []}])
def test_a_checkpoint_without_the_state_starts_it_afresh(name: str, state: dict[str, object]) -> None:
    callback = used(name)
    callback.load_state_dict(state)
    assert callback.state_dict() == STATEFUL[name](RECIPE).state_dict()


@pytest.mark.parametrize("callback", STATELESS, ids=lambda callback: callback.name)
def test_the_others_have_none(callback: Callback) -> None:
    assert callback.state_dict() == {}
    callback.load_state_dict({"of": "another version"})


def test_names_are_unique_and_all_of_them_are_covered_here() -> None:
    made = {
        value for value in vars(package).values() if isinstance(value, type) and issubclass(value, Callback)
    }
    made.discard(Callback)
    names = {one.name for one in made}
    assert len(names) == len(made) == 15
    covered = {*STATEFUL, *(one.name for one in STATELESS)}
    # The rest need an engine or a folder, and inherit both methods as they are.
    rest: list[type[Callback]] = [LogCallback, SaveCallback, Watchdog]
    assert names == covered | {one.name for one in rest} | {BestCallback.name}  # test_best.py has its state
    for one in rest:
        assert one.state_dict is Callback.state_dict and one.load_state_dict is Callback.load_state_dict
