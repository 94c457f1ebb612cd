"""The DeepSpeed ZeRO-2 engine around an `AdaptedModel`: one exact step, one reduction, host snapshots."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.data.read.prefetch import ReadAhead
from persianmind.engine import collectives
from persianmind.engine.base import Batch, DeviceBatch, SkipRule, StepResult, StopLevel
from persianmind.engine.deepspeed.adamw import adamw_kernel, keep_kernel
from persianmind.engine.deepspeed.files import (
    DeepSpeedSnapshot,
    load_engine,
    load_weights,
    needed_files,
    snapshot_engine,
)
from persianmind.engine.deepspeed.loading import load_verified
from persianmind.engine.groups import parameter_groups
from persianmind.engine.ranks import Ranks
from persianmind.model.adapted import AdaptedModel
from persianmind.model.documents import model_inputs
from persianmind.run.records import SkipReason


class DeepSpeedEngine:
    """One ZeRO-2 engine; `engine.base.Engine`."""

    def __init__(self, model: AdaptedModel, config: dict[str, Any], ranks: Ranks) -> None:
        import deepspeed

        # DeepSpeed logs hundreds of informational lines; warnings and errors still come through.
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        self.ranks = ranks
        self.model = model
        self._marks = _Marks(model)
        weight_decay = config["optimizer"]["params"]["weight_decay"]
        self._deepspeed, _, _, _ = deepspeed.initialize(
            model=model,
            model_parameters=parameter_groups(model, weight_decay),
            config=_with_kernel(config, next(model.parameters()).device),
        )
        self._own_boundaries()
        self.device: torch.device = self._deepspeed.device
        self.on_progress: Callable[[], None] = lambda: None

    @property
    def steps(self) -> int:
        """Steps that DeepSpeed has counted, those of a restored checkpoint included."""
        return int(self._deepspeed.global_steps)

    def _own_boundaries(self) -> None:
        """We sum micro-batches ourselves; each step() call is a boundary, whatever DeepSpeed counts."""
        self._deepspeed.set_gradient_accumulation_boundary(True)

    def set_rates(self, rates: Mapping[str, float]) -> None:
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = rates[group["name"]]

    def prepare(self, batch: Batch) -> DeviceBatch:
        return DeviceBatch(model_inputs(batch, self.device))

    def step(
        self,
        micro_batches: Iterable[Batch | DeviceBatch],
        stop_level: StopLevel = StopLevel.NONE,
        should_skip: SkipRule | None = None,
        local_targets: int | None = None,
        sources: int = 0,
    ) -> StepResult:
        """One optimizer step over this rank's micro-batches; the loss is normalised by all ranks' targets.

        Gradients are summed in fp32 over the micro-batches and reduced over the ranks once. `stop_level` is
        combined by maximum over the ranks, free of an extra exchange.
        """
        self.on_progress()
        if local_targets is None:
            micro_batches = list(micro_batches)
            local_targets = sum(_target_count(batch) for batch in micro_batches)
        total_targets, stop_level = self._agree(local_targets, stop_level)
        self._deepspeed.train()
        # ZeRO averages over ranks; times world_size makes it the sum, and the sum over targets the mean.
        self.model.loss_by_source = torch.zeros(sources, dtype=torch.float64, device=self.device)
        local_sum = self._accumulate(micro_batches, scale=self.ranks.world_size / max(1, total_targets))
        summed, *source_losses = self.sum_floats(torch.cat([local_sum.view(1), self.model.loss_by_source]))
        self.model.loss_by_source = None
        loss = summed / max(1, total_targets)
        norm = float(self._deepspeed.optimizer.scaled_global_norm()) if should_skip is not None else None
        spike = bool(norm is not None and norm >= 0 and should_skip is not None and should_skip(loss, norm))
        if spike or not math.isfinite(loss):
            self._skip()
        else:
            self.apply()
        if norm is None:
            found = self._deepspeed.get_global_grad_norm()  # no `or`: asking a tensor is one more wait
            norm = 0.0 if found is None else float(found)
        applied = bool(self._deepspeed.was_step_applied())
        # DeepSpeed gives -1 for a norm that is no number.
        norm = norm if norm >= 0 and (applied or spike) else math.inf
        reason = SkipReason.SPIKE if spike else None if applied else SkipReason.NONFINITE
        return StepResult(loss, total_targets, norm, reason, stop_level, tuple(source_losses))

    def reduced_gradients(
        self, micro_batches: Iterable[Batch | DeviceBatch], scale: float
    ) -> Iterator[tuple[str, Tensor | None]]:
        from deepspeed.utils import safe_get_full_grad

        # ZeRO averages over the ranks; what is asked for is the sum.
        self._accumulate(micro_batches, scale * self.ranks.world_size)
        for name, value in self.model.trained().items():
            yield name, safe_get_full_grad(value)

    def _accumulate(self, micro_batches: Iterable[Batch | DeviceBatch], scale: float) -> Tensor:
        """Gradients of `scale` times this rank's summed loss, averaged over the ranks once at the end.

        Returns this rank's summed loss in nats, a float64 scalar.
        """
        local_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        with self._deepspeed.coalesce_grad_reduction(), _Fp32Gradients(self.model) as gradients:
            for batch in micro_batches:
                self.on_progress()
                ready = batch if isinstance(batch, DeviceBatch) else self.prepare(batch)
                summed = self._deepspeed(**ready.inputs)
                self._deepspeed.backward(summed * scale, scale_wrt_gas=False)
                gradients.add()
                local_sum += summed.detach().double()
        return local_sum

    def apply(self) -> None:
        before = self.steps
        self._deepspeed.step()
        if self.steps != before + 1:
            raise RuntimeError("DeepSpeed did not count the step: the accumulation boundary was lost")

    def _skip(self) -> None:
        """Counts the step but drops its gradients: DeepSpeed's own path for an overflow, taken on purpose."""
        optimizer = self._deepspeed.optimizer
        checks, check = optimizer.check_grad_overflow, optimizer.check_overflow
        optimizer.check_grad_overflow = True
        optimizer.check_overflow = lambda **_: setattr(optimizer, "overflow", True)
        try:
            self.apply()
        finally:
            optimizer.check_grad_overflow, optimizer.check_overflow = checks, check

    @torch.no_grad()
    def summed_loss(self, batches: Iterable[Batch], *, base_vocab_only: bool = False) -> float:
        self.model.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with ReadAhead(self.prepare) as ahead:
            for batch in ahead.items(batches):
                self.on_progress()
                total += self.model(**batch.inputs, base_vocab_only=base_vocab_only).double()
        self.model.train()
        return float(total)

    def target_losses(
        self, batches: Iterable[Batch], *, base_vocab_only: bool = False
    ) -> list[NDArray[np.float64]]:
        self.model.eval()
        losses = []
        with ReadAhead(self.prepare) as ahead:
            for batch in ahead.items(batches):
                self.on_progress()
                losses.append(self.model.target_losses(**batch.inputs, base_vocab_only=base_vocab_only))
        self.model.train()
        return [one.cpu().double().numpy() for one in losses]

    def optimizer_tensors(self) -> Iterator[Tensor]:
        optimizer = self._deepspeed.optimizer
        yield from optimizer.single_partition_of_fp32_groups
        for state in optimizer.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def snapshot(self) -> DeepSpeedSnapshot:
        return DeepSpeedSnapshot(snapshot_engine(self._deepspeed))

    def check_files(self, checkpoint: StoredCheckpoint) -> None:
        for name in needed_files(checkpoint, self.ranks.rank, self.ranks.world_size):
            load_verified(checkpoint, name)

    def restore(self, checkpoint: StoredCheckpoint, *, weights_only: bool = False) -> bool:
        if weights_only:
            load_weights(self._deepspeed, checkpoint)
            return checkpoint.world_size != self.ranks.world_size
        resharded = load_engine(self._deepspeed, checkpoint)
        keep_kernel(self._deepspeed.optimizer.optimizer, self.device)
        self._own_boundaries()  # DeepSpeed resets its boundary mode on load
        return resharded

    def sum(self, value: Tensor | float) -> float:
        return collectives.sum_float(value, self.device, self.ranks.world_size)

    def sum_floats(self, values: Tensor | Sequence[float]) -> list[float]:
        return collectives.sum_floats(values, self.device, self.ranks.world_size)

    def sum_counts(self, values: Sequence[int]) -> list[int]:
        return collectives.sum_counts(values, self.device, self.ranks.world_size)

    def max(self, value: int) -> int:
        return collectives.max_count(value, self.device, self.ranks.world_size)

    def close(self) -> None:
        self._deepspeed.destroy()
        self._marks.remove()
        del self._deepspeed
        gc.collect()  # engine, optimizer and hooks hold each other

    def _agree(self, local_targets: int, stop_level: StopLevel) -> tuple[int, StopLevel]:
        """(targets of all ranks, the highest stop level), in one exchange."""
        votes = [int(level == stop_level) for level in StopLevel]
        targets, *counts = self.sum_counts([local_targets, *votes])
        return targets, max(level for level, count in zip(StopLevel, counts, strict=True) if count)


def _with_kernel(config: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    optimizer = config["optimizer"]
    params = {**optimizer["params"], **adamw_kernel(device)}
    return {**config, "optimizer": {**optimizer, "params": params}}


def _target_count(batch: Batch | DeviceBatch) -> int:
    """On the host."""
    if isinstance(batch, DeviceBatch):
        raise TypeError("a step over batches that are on the device needs local_targets")
    return int((batch["labels"] >= 0).sum())


class _Marks:
    """What DeepSpeed leaves on a module when it is destroyed: hooks that run at every forward pass, and
    attributes of the parameters. Each holds the whole engine, and with it masters, moments and buffers."""

    _HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

    def __init__(self, model: AdaptedModel) -> None:
        """Before DeepSpeed sees the model."""
        self._model = model
        self._hooks = {name: set(getattr(model, name)) for name in self._HOOKS}
        self._attributes = {name: set(vars(value)) for name, value in model.trained().items()}

    def remove(self) -> None:
        """Takes away what was not there before."""
        for name, before in self._hooks.items():
            hooks = getattr(self._model, name)
            for key in set(hooks) - before:
                del hooks[key]
        for name, value in self._model.trained().items():
            for attribute in set(vars(value)) - self._attributes[name]:
                delattr(value, attribute)


class _Fp32Gradients:
    """Sums micro-batch gradients in fp32: in bf16 the small late contributions would be rounded away.

    DeepSpeed's own switch for this (data_types.grad_accum_dtype) has no effect at ZeRO stage 2.
    """

    def __init__(self, model: AdaptedModel) -> None:
        self.parameters = list(model.trained().values())
        self.sums: list[Tensor | None] = [None] * len(self.parameters)

    def __enter__(self) -> _Fp32Gradients:
        return self

    def add(self) -> None:
        """Moves the gradients of the micro-batch just done into the sums."""
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if self.sums[index] is None:
                self.sums[index] = parameter.grad.float()
            else:
                self.sums[index] += parameter.grad  # type: ignore[operator]
            parameter.grad = None

    def __exit__(self, *exc: object) -> None:
        for parameter, total in zip(self.parameters, self.sums, strict=True):
            if total is not None:
                parameter.grad = total.to(parameter.dtype)
