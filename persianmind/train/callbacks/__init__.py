"""The side concerns of training. To add one: a file here and its line in `make_callbacks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persianmind.energy.budget import Budget
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

if TYPE_CHECKING:
    from persianmind.train.context import RunContext


def make_callbacks(context: RunContext, watchdog: Watchdog, budget: Budget) -> list[Callback]:
    """All of them, in the order in which their hooks are called: what a step was is logged and judged before
    it is saved."""
    recipe = context.recipe
    evaluate, suites, samples = EvaluateCallback(recipe), SuiteCallback(recipe), SampleCallback(recipe)
    saves = SaveCallback(context)
    return [
        watchdog,
        EnergyCallback(),
        LogCallback(recipe, context.engine),
        ProgressCallback(budget),
        SpikeCallback(recipe.train),
        PlateauCallback(recipe.stages),
        saves,
        BudgetCallback(budget),
        evaluate,
        suites,
        ForgettingCallback(recipe),
        BestCallback(recipe, evaluate, suites, saves),
        NewTokenCallback(recipe, evaluate),
        samples,
        EstimateCallback(budget, evaluate, suites, samples),
    ]
