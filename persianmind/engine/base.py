"""What training needs of an engine: exact optimizer steps over ranks, evaluation, snapshots.

An engine is a package beside engine/deepspeed with a `BACKEND` in it (registry.py); nothing outside that
package knows what it is built on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.engine.ranks import Ranks
from persianmind.recipe import Recipe
from persianmind.run.records import SkipReason

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from persianmind.model.adapted import AdaptedModel

Batch = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A batch as the model takes it, on the engine's device. inputs: arguments of `AdaptedModel.forward`."""

    inputs: Mapping[str, Any]


# Asked before the weights move, with the loss and the gradient norm of all ranks: whether to skip the step.
SkipRule = Callable[[float, float], bool]


class StopLevel(IntEnum):
    """What a rank tells the others at a step; the highest wins everywhere."""

    NONE = 0
    STOP = 1
    BUDGET = 2


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did, the same on every rank.

    loss: mean over all targets, nats. grad_norm: before clipping; inf where a gradient was no finite number.
    skip_reason: why no weight moved; None where they did. source_losses: summed nats of each source.
    """

    loss: float
    target_tokens: int
    grad_norm: float
    skip_reason: SkipReason | None
    stop_level: StopLevel
    source_losses: tuple[float, ...] = ()


class Snapshot(Protocol):
    """This rank's share of the trained state, copied to host memory: training may go on meanwhile."""

    def write(self, folder: Path) -> None:
        """Writes it below `folder`. No collectives. Raises OSError when the disk is full or failing."""
        ...


class Engine(Protocol):
    """One engine around an `AdaptedModel`. All ranks call every method together, but for `Snapshot.write`."""

    ranks: Ranks
    model: AdaptedModel
    device: torch.device
    on_progress: Callable[[], None]
    """Called wherever this rank makes progress."""

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Sets the learning rate of each parameter group (`groups.GROUPS`) for the next step."""
        ...

    def prepare(self, batch: Batch) -> DeviceBatch:
        """A batch on its way to the device; another thread may do this while a step runs."""
        ...

    def step(
        self,
        micro_batches: Iterable[Batch | DeviceBatch],
        stop_level: StopLevel = StopLevel.NONE,
        should_skip: SkipRule | None = None,
        local_targets: int | None = None,
        sources: int = 0,
    ) -> StepResult:
        """One optimizer step over this rank's micro-batches, normalised by the targets of all ranks.

        Args:
            micro_batches: each is taken when its turn comes.
            local_targets: of all of them; None: they are counted, for which none may be on the device yet.
            sources: how many there are, the `source_ids` of the batches being below it; 0: losses are not
                told apart.
        """
        ...

    def reduced_gradients(
        self, micro_batches: Iterable[Batch | DeviceBatch], scale: float
    ) -> Iterator[tuple[str, Tensor | None]]:
        """(name, whole gradient) of `scale` times the summed loss of all ranks; the step is left undone."""
        ...

    def apply(self) -> None:
        """The optimizer step on the gradients that were accumulated last."""
        ...

    def summed_loss(self, batches: Iterable[Batch], *, base_vocab_only: bool = False) -> float:
        """Summed negative log-likelihood of this rank's batches in nats, without gradients or collectives."""
        ...

    def target_losses(
        self, batches: Iterable[Batch], *, base_vocab_only: bool = False
    ) -> list[NDArray[np.float64]]:
        """The negative log-likelihood of each target of this rank's batches in nats, [N] for each batch,
        without gradients or collectives."""
        ...

    def optimizer_tensors(self) -> Iterator[Tensor]:
        """Masters and moments that this rank holds, wherever they lie."""
        ...

    def snapshot(self) -> Snapshot:
        """A copy of this rank's share of the trained state."""
        ...

    def check_files(self, checkpoint: StoredCheckpoint) -> None:
        """Reads what `restore` will need on this rank. No collectives.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        ...

    def restore(self, checkpoint: StoredCheckpoint, *, weights_only: bool = False) -> bool:
        """Takes up a verified checkpoint, whatever number of ranks saved it; whether it was resharded.

        weights_only: optimizer state, rates and step counters stay as they are.

        Raises:
            CheckpointError: the checkpoint trains other parameters.
        """
        ...

    def sum(self, value: float) -> float:
        """The sum of a float64 over all ranks."""
        ...

    def sum_floats(self, values: Sequence[float]) -> list[float]:
        """The sum of each float64 over all ranks, in one exchange."""
        ...

    def sum_counts(self, values: Sequence[int]) -> list[int]:
        """The sum of each whole number over all ranks, in one exchange."""
        ...

    def max(self, value: int) -> int:
        """The largest of a whole number over all ranks."""
        ...

    def close(self) -> None:
        """Frees the engine; the module stays usable."""
        ...


class Backend(Protocol):
    """How an engine is set up; methods that say so import nothing heavy."""

    default_config: Path
    wait_frames: tuple[str, ...]
    """Parts of file names: a thread below such a frame waits for other ranks."""

    def prepare_environment(self) -> None:
        """Sets what must be set before torch is imported; called first by every entry. Light."""
        ...

    def prepare_group(self, ranks: Ranks | None, hang_timeout_s: float) -> None:
        """Sets what must be set before a process group is made; for those who make it themselves. Light.

        ranks: None where the network interface is chosen by the caller.
        """
        ...

    def resolve_config(self, path: Path, recipe: Recipe, world_size: int) -> dict[str, Any]:
        """The engine's own config file, filled from the recipe. Light.

        Raises:
            RecipeError: it is not usable, or contradicts the recipe; both places are named.
        """
        ...

    def start(
        self,
        ranks: Ranks,
        hang_timeout_s: float,
        agreed: Mapping[str, str] | None = None,
        progressed_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Joins the process group, once every rank has come and all can exchange a number.

        agreed: what must be the same on all ranks, by recipe key. progressed_s: when rank 0, which may still
        prepare the run, last made progress, by `time.monotonic`.

        Raises:
            MachineError: the device cannot be used, or the ranks disagree.
            RankUnreachableError: some rank does not come or does not answer; the line names it.
        """
        ...

    def device(self, ranks: Ranks) -> torch.device:
        """Where this rank computes."""
        ...

    def open(self, model: AdaptedModel, config: Mapping[str, Any], ranks: Ranks) -> Engine:
        """An engine around the model; all ranks together."""
        ...

    def trained_tensors(self, checkpoint: StoredCheckpoint) -> dict[str, Tensor]:
        """The trained weights of a verified checkpoint by parameter name, fp32, on the host. Needs neither a
        process group nor a GPU.

        Raises:
            CheckpointError: a file is damaged or missing.
        """
        ...

    def launcher_is_gone(self) -> bool:
        """Whether a launcher that started this process has ended; never without one. Light."""
        ...
