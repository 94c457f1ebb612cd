"""The training loop: load, step, log, save, evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import NonFiniteError, RunInterruptedError
from persianmind.data.read.barrier import DataBarrier
from persianmind.data.read.batches import StageData
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.order import Mixture, mixture_shares, rank_samples
from persianmind.energy.budget import Budget
from persianmind.engine.deepspeed.engine import Engine, StepResult
from persianmind.engine.schedule import group_rates
from persianmind.estimate.time import outlook
from persianmind.recipe import Recipe
from persianmind.run.log import RunLog
from persianmind.train.evaluation import Evaluation
from persianmind.train.history import History
from persianmind.train.metrics import StepMetrics
from persianmind.train.progress import Progress
from persianmind.train.saving import RunCheckpoints
from persianmind.train.stages import StagePlan, plan_stages

if TYPE_CHECKING:
    from persianmind.checkpoint.store import Checkpoint
    from persianmind.energy.meter.client import EnergyMeter

STOP, BUDGET = 1, 2  # stop_level of a step


@dataclass
class Trainer:
    """All parts of one run on one rank. `step` counts finished optimizer steps over all stages."""

    recipe: Recipe
    engine: Engine
    plans: list[StagePlan]
    datasets: dict[str, TokenDataset]
    checkpoints: RunCheckpoints
    evaluation: Evaluation
    log: RunLog
    metrics: StepMetrics
    history: History
    progress: Progress
    gate: DataBarrier
    meter: EnergyMeter | None
    stop_requested: Callable[[], bool]
    budget: Budget
    step: int = 0
    saved_step: int = 0
    nonfinite: int = 0

    def train(self) -> None:
        """Runs every stage from `step` on; each ends with a checkpoint and an evaluation.

        Raises:
            RunInterruptedError: a stop was asked for; the checkpoint of the step reached is committed.
            NonFiniteError: too many steps in a sequence had no finite gradient.
        """
        for index in range(len(self.plans)):  # by number: a stage that ends early moves those after it
            plan = self.plans[index]
            if self.step < plan.last_step:
                self.train_stage(plan)
            if not self.evaluation.has(plan.stage.name):
                self.mark(f"evaluate:{plan.stage.name}")
                self.evaluation.after(plan.stage.name)

    def train_stage(self, plan: StagePlan) -> None:
        """Steps through one stage, from wherever `step` stands in it."""
        data = stage_data(self.recipe, plan, self.datasets)
        while self.step < plan.last_step:
            self.mark(plan.stage.name)
            first = (self.step - plan.first_step) * self.recipe.train.global_batch_size
            self._wait_for_sequences(plan, data, first)
            started_s = time.perf_counter()
            rates = group_rates(self.recipe, plan.stage, self.step - plan.first_step, plan.steps)
            self.engine.set_rates(rates)
            should_skip = self.history.is_spike if self.history.watches_spikes else None
            result = self.engine.step(
                self._micro_batches(data, first), stop_level=self._stop_level(), should_skip=should_skip
            )
            self.step += 1
            self._log(plan, data, first, result, rates, time.perf_counter() - started_s)
            self._judge(result, first)
            plan = self._end_early(plan)
            at_end = self.step == plan.last_step
            if at_end:
                self.history.stage_done()
            if result.stop_level or at_end or self.step % self.recipe.checkpoint.every_steps == 0:
                self._save(plan)
            if result.stop_level and not (at_end and plan is self.plans[-1]):
                self.checkpoints.finish()
                if result.stop_level == BUDGET:
                    raise self.budget.reached(self._joules(), self.step)
                raise RunInterruptedError(
                    f"stopped at step {self.step}, saved; run the same command to go on"
                )
        self.checkpoints.finish()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes the run up where the checkpoint left it, stages that ended early included."""
        self.checkpoints.restore(checkpoint)
        self.step = self.saved_step = checkpoint.step
        self.history.restore(checkpoint.metadata.get("history", {}))
        self._replan()

    def _wait_for_sequences(self, plan: StagePlan, data: StageData, first: int) -> None:
        """Lets the step begin once its sequences are built; a stop is not left waiting for them.

        Raises:
            RunInterruptedError: a stop was asked for; the checkpoint of the step reached is committed.
        """
        samples = range(first, first + self.recipe.train.global_batch_size)
        if self.gate.open(data, samples, self.stop_requested):
            return
        if self.step != self.saved_step:
            self._save(plan)
        self.checkpoints.finish()
        raise RunInterruptedError(
            f"stopped at step {self.step}, saved, while the next sequences were being built; run the same "
            "command to go on"
        )

    def _end_early(self, plan: StagePlan) -> StagePlan:
        """The plan of the stage, cut short at the present step if it has reached its plateau."""
        if self.step == plan.last_step or not self.history.on_plateau(plan.stage):
            return plan
        self.history.ended[plan.stage.name] = self.step - plan.first_step
        self.progress.say(f"stage {plan.stage.name} ends at step {self.step}: its loss stopped falling")
        self._replan()
        return self.plans[plan.index]

    def _replan(self) -> None:
        sequences = {name: dataset.num_sequences for name, dataset in self.datasets.items()}
        self.plans = plan_stages(self.recipe, sequences, self.history.ended)
        self.progress.steps = self.plans[-1].last_step

    def _stop_level(self) -> int:
        """What this rank wants to tell the others at the coming step; the highest wins everywhere."""
        if self.stop_requested():
            return STOP
        return BUDGET if self.budget.exceeded(self._joules()) else 0

    def _joules(self) -> float:
        """What this node has used so far in this attempt; 0.0 on ranks without the meter."""
        return 0.0 if self.meter is None else self.meter.joules()

    def _micro_batches(self, data: StageData, first: int) -> list[dict[str, Any]]:
        train, ranks = self.recipe.train, self.engine.ranks
        mine = list(rank_samples(first, train.global_batch_size, ranks.rank, ranks.world_size))
        size = train.micro_batch_size
        return [data.batch(mine[start : start + size]) for start in range(0, len(mine), size)]

    def _judge(self, result: StepResult, first: int) -> None:
        """All ranks left the step out alike if it was a spike or not finite; within a budget, go on."""
        self.history.add(result.loss, result.grad_norm)
        samples = f"samples {first} to {first + self.recipe.train.global_batch_size - 1}"
        if result.skipped:
            self.progress.say(
                f"step {self.step}: loss {result.loss:.4f}, gradient norm {result.grad_norm:.3g} is a spike, "
                f"step left out ({samples})"
            )
        if result.applied or result.skipped:
            self.nonfinite = 0
            return
        self.nonfinite += 1
        self.progress.say(f"step {self.step}: loss or gradient not finite, step skipped ({samples})")
        if self.nonfinite > self.recipe.train.nonfinite_budget:
            self.checkpoints.finish()
            raise NonFiniteError(
                f"{self.nonfinite} steps in a row were not finite, the last with {samples} of the stage; the "
                "last good checkpoint is kept: lower the learning rate or look at these sequences with "
                "`persianmind data inspect`"
            )

    def _save(self, plan: StagePlan) -> None:
        if self.nonfinite:
            return  # never the newest checkpoint of a run that has lost its footing
        self.log.flush()
        tokens = self.step * self.recipe.train.global_batch_size * self.recipe.data.seq_len
        history = self.history.state_dict()
        self.saved_step = self.step
        self.checkpoints.save(self.step, stage=plan.stage.name, tokens=tokens, history=history)

    def say_outlook(self, forward_s: float, forward_tokens: int) -> None:
        """Hours, kWh and whether the energy budget will do, from the speed of a first evaluation."""
        ranks = self.engine.ranks
        watts = None if self.meter is None else self.meter.watts()
        if watts is not None:
            watts *= ranks.world_size / ranks.local_size
        steps = self.plans[-1].last_step
        for line in outlook(self.recipe, forward_s, forward_tokens, steps, watts, self.budget):
            self.progress.say(line)

    def mark(self, stage: str) -> None:
        """Tells the energy meter, where this rank has it, what follows."""
        if self.meter is not None:
            self.meter.mark(stage, self.step + 1)

    def _log(
        self,
        plan: StagePlan,
        data: StageData,
        first: int,
        result: StepResult,
        rates: dict[str, float],
        seconds: float,
    ) -> None:
        if not self.log.active:
            return
        samples = range(first, first + self.recipe.train.global_batch_size)
        stage = (plan.stage.name, self.step - plan.first_step)
        joules = None if self.meter is None else self.meter.joules()
        values = self.metrics.values(self.step, stage, samples, data, result, rates, seconds, joules)
        self.log.metric(values)
        self.progress.step(values, budget=self.budget.progress(joules or 0.0))


def stage_data(recipe: Recipe, plan: StagePlan, datasets: dict[str, TokenDataset]) -> StageData:
    """The order of one stage; its number is mixed into the seed, so stages do not repeat each other."""
    sequences = {name: datasets[name].num_sequences for name in plan.stage.sources}
    mixture = Mixture(
        sequences,
        mixture_shares(plan.stage.sources, sequences, recipe.data.mixture_temperature),
        recipe.data.mixture_window,
        recipe.seed + plan.index,
        block_sequences=recipe.data.shuffle_block_sequences,
    )
    return StageData(mixture, datasets)
