"""What the parts of a run share on one rank, and where the run stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from persianmind.engine.base import Engine, StepResult
from persianmind.engine.ranks import Ranks
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import RunLog
from persianmind.run.records import DataChange, Phase, Prepared, StepRecord
from persianmind.train.beside import BesideTimes
from persianmind.train.stages import StagePlan, plan_stages, tokens_after

if TYPE_CHECKING:
    from persianmind.data.read.batches import StageData
    from persianmind.data.read.dataset import TokenDataset
    from persianmind.energy.meter.client import EnergyMeter
    from persianmind.train.callbacks.base import Callback
    from persianmind.train.memory import MicroBatchBytes


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One optimizer step as callbacks see it. samples: numbers within the stage; rates: by parameter
    group."""

    data: StageData
    samples: range
    result: StepResult
    rates: Mapping[str, float]
    seconds: float


@dataclass
class RunContext:
    """One run on one rank.

    step: finished optimizer steps over all stages. plan_index: the stage that is being trained.
    nonfinite_steps: steps in a row that had no finite gradient. ended: stages that ended early. data_changes:
    other data taken on the way. beside: how long what is no step takes. record: the last step; micro_batches:
    what one holds, by sequence length; both on rank 0 alone. datasets: by the names of their packings.
    stop_requested: whether a stop was asked for. meter: on the rank that has this node's.
    """

    recipe: Recipe
    folder: RunFolder
    ranks: Ranks
    engine: Engine
    prepared: Prepared
    datasets: dict[str, TokenDataset]
    plans: list[StagePlan]
    log: RunLog
    meter: EnergyMeter | None
    stop_requested: Callable[[], bool]
    on_progress: Callable[[], None]
    callbacks: list[Callback] = field(default_factory=list)
    step: int = 0
    plan_index: int = 0
    nonfinite_steps: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    data_changes: list[DataChange] = field(default_factory=list)
    beside: BesideTimes = field(default_factory=BesideTimes)
    record: StepRecord | None = None
    micro_batches: Mapping[int, MicroBatchBytes] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.ranks.rank == 0

    @property
    def plan(self) -> StagePlan:
        """The stage that is being trained; its length can change while it is."""
        return self.plans[self.plan_index]

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return self.plans[-1].last_step

    @property
    def stage_step(self) -> int:
        """Finished steps of this stage."""
        return self.step - self.plan.first_step

    @property
    def at_stage_end(self) -> bool:
        """Whether the stage is done."""
        return self.step == self.plan.last_step

    @property
    def seq_len(self) -> int:
        """Of the sequences of the stage that is being trained."""
        return self.recipe.seq_len_of(self.plan.stage)

    @property
    def tokens(self) -> int:
        """Packed positions of the finished steps of all ranks."""
        return self.total_tokens - self.tokens_left

    @property
    def total_tokens(self) -> int:
        """Packed positions of all stages."""
        return tokens_after(self.recipe, self.plans, 0)

    @property
    def tokens_left(self) -> int:
        """Packed positions that are still to be trained on."""
        return tokens_after(self.recipe, self.plans, self.step)

    def replan(self, ended: Mapping[str, int]) -> None:
        """Computes the stages anew; `ended`: steps of those that ended early, beside those known before."""
        self.ended |= ended
        counts = {name: dataset.num_sequences for name, dataset in self.datasets.items()}
        self.plans = plan_stages(self.recipe, counts, self.ended)

    def mark(self, phase: Phase, stage: str = "", *, resumed_step: int | None = None) -> None:
        """Tells the energy meter, where this rank has it, what follows."""
        if self.meter is not None:
            self.meter.mark(phase, self.step + 1, stage, resumed_step=resumed_step)

    def joules(self) -> float:
        """What this node has used so far in this attempt; 0.0 on ranks without the meter."""
        return 0.0 if self.meter is None else self.meter.joules()
