"""The training loop: load, step, log, save, evaluate."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from persianmind.data.batches import StageData
from persianmind.data.dataset import TokenDataset
from persianmind.data.order import Mixture, mixture_shares, rank_samples
from persianmind.energy.budget import Budget
from persianmind.errors import Interrupted, NonFiniteError
from persianmind.recipe import Recipe
from persianmind.train.engine import Engine, StepResult
from persianmind.train.evaluation import Evaluation
from persianmind.train.progress import Progress
from persianmind.train.runlog import RunLog
from persianmind.train.saving import RunCheckpoints
from persianmind.train.schedule import group_rates
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.energy.meter import EnergyMeter

STOP, BUDGET = 1, 2  # flags of a step


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
    progress: Progress
    meter: EnergyMeter | None
    stop_requested: Callable[[], bool]
    budget: Budget
    step: int = 0
    nonfinite: int = 0

    def train(self) -> None:
        """Runs every stage from `step` on; each ends with a checkpoint and an evaluation.

        Raises:
            Interrupted: a stop was asked for; the checkpoint of the step reached is committed.
            NonFiniteError: too many steps in a row had no finite gradient.
        """
        for plan in self.plans:
            if self.step < plan.last_step:
                self.train_stage(plan)
            if not self.evaluation.has(plan.stage.name):
                self.mark(f"evaluate:{plan.stage.name}")
                self.evaluation.after(plan.stage.name)

    def train_stage(self, plan: StagePlan) -> None:
        """Steps through one stage, from wherever `step` stands in it."""
        data = stage_data(self.recipe, plan, self.datasets)
        while self.step < plan.last_step:
            started_s = time.perf_counter()
            self.mark(plan.stage.name)
            rates = group_rates(self.recipe, plan.stage, self.step - plan.first_step, plan.steps)
            self.engine.set_rates(rates)
            first = (self.step - plan.first_step) * self.recipe.train.global_batch_rows
            result = self.engine.step(self._micro_batches(data, first), flags=self._flag())
            self.step += 1
            self._check_finite(result, first)
            self._log(plan, data, first, result, rates, time.perf_counter() - started_s)
            at_end = self.step == plan.last_step
            if result.flags or at_end or self.step % self.recipe.checkpoint.every_steps == 0:
                self._save(plan)
            if result.flags and not (at_end and plan is self.plans[-1]):
                self.checkpoints.finish()
                if result.flags == BUDGET:
                    raise self.budget.reached(self._joules(), self.step)
                raise Interrupted(f"stopped at step {self.step}, saved; run the same command to go on")
        self.checkpoints.finish()

    def _flag(self) -> int:
        """What this rank wants to tell the others at the coming step; the highest wins everywhere."""
        if self.stop_requested():
            return STOP
        return BUDGET if self.budget.exceeded(self._joules()) else 0

    def _joules(self) -> float:
        """What this node has used so far in this attempt; 0.0 on ranks without the meter."""
        return 0.0 if self.meter is None else self.meter.joules()

    def _micro_batches(self, data: StageData, first: int) -> list[dict[str, Any]]:
        train, ranks = self.recipe.train, self.engine.ranks
        mine = list(rank_samples(first, train.global_batch_rows, ranks.rank, ranks.world_size))
        size = train.micro_batch_rows
        return [data.batch(mine[start : start + size]) for start in range(0, len(mine), size)]

    def _check_finite(self, result: StepResult, first: int) -> None:
        """ZeRO skipped the step on all ranks alike when a gradient was not finite; within a budget, go on."""
        if result.applied and math.isfinite(result.loss):
            self.nonfinite = 0
            return
        self.nonfinite += 1
        samples = f"samples {first} to {first + self.recipe.train.global_batch_rows - 1}"
        self.progress.say(f"step {self.step}: loss or gradient not finite, step skipped ({samples})")
        if self.nonfinite > self.recipe.train.nonfinite_budget:
            self.checkpoints.finish()
            raise NonFiniteError(
                f"{self.nonfinite} steps in a row were not finite, the last with {samples} of the stage; the "
                "last good checkpoint is kept: lower the learning rate or look at these rows with "
                "`persianmind data inspect`"
            )

    def _save(self, plan: StagePlan) -> None:
        if self.nonfinite:
            return  # never the newest checkpoint of a run that has lost its footing
        self.log.flush()
        tokens = self.step * self.recipe.train.global_batch_rows * self.recipe.data.row_length
        self.checkpoints.save(self.step, stage=plan.stage.name, tokens=tokens)

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
        batch_rows = self.recipe.train.global_batch_rows
        tokens = batch_rows * self.recipe.data.row_length
        useful = data.useful_tokens(range(first, first + batch_rows))
        values = {
            "stage": plan.stage.name,
            "step": self.step,
            "stage_step": self.step - plan.first_step,
            "loss": result.loss if math.isfinite(result.loss) else None,
            "loss_hex": float.hex(result.loss),
            "tokens": tokens,
            "useful_tokens": useful,
            "target_tokens": result.target_tokens,
            "tokens_per_s": tokens / seconds,
            "useful_tokens_per_s": useful / seconds,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "learning_rate": rates["adapters_a"],
            "rows_learning_rate": rates["rows"],
            "applied": result.applied,
            "first_sample": first,
            "samples": batch_rows,
            "seconds": seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "joules": None if self.meter is None else self.meter.joules(),
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        self.log.metric(values)
        self.progress.step(values)


def stage_data(recipe: Recipe, plan: StagePlan, datasets: dict[str, TokenDataset]) -> StageData:
    """The order of one stage; its number is mixed into the seed, so stages do not repeat each other."""
    rows = {name: len(datasets[name]) for name in plan.stage.sources}
    mixture = Mixture(
        rows,
        mixture_shares(plan.stage.sources, rows, recipe.data.mixture_temperature),
        recipe.data.mixture_window,
        recipe.seed + plan.index,
        block_rows=recipe.data.shuffle_block_rows,
    )
    return StageData(mixture, datasets)
