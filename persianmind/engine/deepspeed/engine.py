"""The DeepSpeed ZeRO-2 engine around an `AdaptedModel`: parameter groups, rates, one exact step."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor

from persianmind.engine.ranks import Ranks
from persianmind.model.adapted import AdaptedModel

Batch = Mapping[str, NDArray[np.int64]]
STOP_LEVELS = 3  # what ranks can tell each other at a step: 0 nothing, 1 stop asked, 2 energy budget reached


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did, the same on every rank; `loss` is the mean over all targets, in nats.

    `grad_norm`: before clipping; inf or nan where a gradient was. `skipped`: finite, but left out on request.
    """

    loss: float
    target_tokens: int
    grad_norm: float
    applied: bool
    stop_level: int
    skipped: bool = False


def quiet_deepspeed() -> None:
    """DeepSpeed logs hundreds of informational lines; warnings and errors still come through."""
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)


def parameter_groups(model: AdaptedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Groups with rates of their own; empty ones are left out (torch 2.13 fails on them)."""
    groups: dict[str, list[torch.nn.Parameter]] = {"adapters_a": [], "adapters_b": [], "embeddings": []}
    for name, parameter in model.trained().items():
        kind = "embeddings" if "lora_" not in name else "adapters_b" if "lora_B" in name else "adapters_a"
        groups[kind].append(parameter)
    return [
        {"params": parameters, "name": name, "weight_decay": weight_decay}
        for name, parameters in groups.items()
        if parameters
    ]


class Engine:
    """One ZeRO-2 engine. All ranks call every method together."""

    def __init__(self, model: AdaptedModel, config: dict[str, Any], ranks: Ranks) -> None:
        import deepspeed

        quiet_deepspeed()
        self.ranks = ranks
        self.model = model
        weight_decay = config.get("optimizer", {}).get("params", {}).get("weight_decay", 0.0)
        self.deepspeed, _, _, _ = deepspeed.initialize(
            model=model, model_parameters=parameter_groups(model, weight_decay), config=config
        )
        # We sum micro-batches ourselves; each step() call is a boundary, whatever DeepSpeed counts.
        self.deepspeed.set_gradient_accumulation_boundary(True)
        self.device = self.deepspeed.device
        # Told wherever this rank gets on; the watchdog listens.
        self.beat: Callable[[], None] = lambda: None

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Sets each group's learning rate for the next step."""
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = rates[group["name"]]

    def step(
        self,
        micro_batches: Sequence[Batch],
        stop_level: int = 0,
        should_skip: Callable[[float, float], bool] | None = None,
    ) -> StepResult:
        """One optimizer step over this rank's micro-batches; the loss is normalised by all ranks' targets.

        Gradients are summed in fp32 over the micro-batches and reduced over the ranks once. `stop_level`
        (below STOP_LEVELS) is combined by maximum over the ranks, free of an extra exchange.
        `should_skip(loss, grad_norm)` is asked before the weights move, with the same numbers on every rank.
        """
        self.beat()
        local_targets = sum(int((batch["labels"] >= 0).sum()) for batch in micro_batches)
        total_targets, stop_level = self._agree(local_targets, stop_level)
        self.deepspeed.train()
        # ZeRO averages over ranks; times world_size makes it the sum, and the sum over targets the mean.
        local_sum = self.accumulate(micro_batches, scale=self.ranks.world_size / max(1, total_targets))
        loss = self._sum_over_ranks(local_sum) / max(1, total_targets)
        norm = float(self.deepspeed.optimizer.scaled_global_norm()) if should_skip is not None else None
        skipped = bool(norm is not None and norm >= 0 and should_skip is not None and should_skip(loss, norm))
        if skipped or not math.isfinite(loss):
            self._leave_out()
        else:
            self.apply()
        if norm is None:
            norm = float(self.deepspeed.get_global_grad_norm() or 0.0)
        applied = bool(self.deepspeed.was_step_applied())
        # DeepSpeed gives -1 for a norm that is no number.
        norm = norm if norm >= 0 and (applied or skipped) else math.inf
        return StepResult(loss, total_targets, norm, applied, stop_level, skipped)

    def accumulate(self, micro_batches: Sequence[Batch], scale: float) -> Tensor:
        """Gradients of `scale` times this rank's summed loss, reduced over the ranks once at the end.

        Returns this rank's summed loss in nats, a float64 scalar.
        """
        local_sum = torch.zeros((), dtype=torch.float64)
        with self.deepspeed.coalesce_grad_reduction(), _Fp32Gradients(self.model) as gradients:
            for batch in micro_batches:
                self.beat()
                summed = self.deepspeed(**self._tensors(batch))
                self.deepspeed.backward(summed * scale, scale_wrt_gas=False)
                gradients.take()
                local_sum += summed.detach().double().cpu()
        return local_sum

    def apply(self) -> None:
        """The optimizer step on what `accumulate` left; it must count, or nothing was trained."""
        before = self.deepspeed.global_steps
        self.deepspeed.step()
        if self.deepspeed.global_steps != before + 1:
            raise RuntimeError("DeepSpeed did not count the step: the accumulation boundary was lost")

    def _leave_out(self) -> None:
        """Counts the step but drops its gradients: DeepSpeed's own path for an overflow, taken on purpose."""
        optimizer = self.deepspeed.optimizer
        checks, check = optimizer.check_grad_overflow, optimizer.check_overflow
        optimizer.check_grad_overflow = True
        optimizer.check_overflow = lambda **_: setattr(optimizer, "overflow", True)
        try:
            self.apply()
        finally:
            optimizer.check_grad_overflow, optimizer.check_overflow = checks, check

    @torch.no_grad()
    def summed_loss(self, batches: Iterable[Batch], *, base_vocab_only: bool = False) -> float:
        """Summed negative log-likelihood in nats over this rank's batches, without gradients."""
        self.model.eval()
        total = 0.0
        for batch in batches:
            self.beat()
            total += float(self.model(**self._tensors(batch), base_vocab_only=base_vocab_only).double())
        self.model.train()
        return total

    def sum_over_ranks(self, value: float) -> float:
        """The sum of a float64 over all ranks, in rank order."""
        return self._sum_over_ranks(torch.tensor(value, dtype=torch.float64))

    def count_over_ranks(self, values: Sequence[int]) -> list[int]:
        """The sum of each whole number over all ranks, in one exchange."""
        counts = torch.tensor(list(values), dtype=torch.int64, device=self.device)
        if self.ranks.world_size > 1:
            torch.distributed.all_reduce(counts)
        return [int(count) for count in counts.tolist()]

    def close(self) -> None:
        """Frees the engine; the module stays usable."""
        self.deepspeed.destroy()

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for name, a in batch.items()}

    def _agree(self, local_targets: int, stop_level: int) -> tuple[int, int]:
        """(targets of all ranks, maximum of the stop_level), in one exchange."""
        votes = [int(level == stop_level) for level in range(STOP_LEVELS)]
        targets, *counts = self.count_over_ranks([local_targets, *votes])
        raised = [level for level, count in enumerate(counts) if count]
        return targets, max(raised, default=0)

    def _sum_over_ranks(self, value: Tensor) -> float:
        value = value.to(self.device)
        if self.ranks.world_size > 1:
            torch.distributed.all_reduce(value)
        return float(value)


class _Fp32Gradients:
    """Sums micro-batch gradients in fp32: in bf16 the small late contributions would be rounded away.

    DeepSpeed's own switch for this (data_types.grad_accum_dtype) has no effect at ZeRO stage 2. With one
    micro-batch the gradients stay where autograd put them.
    """

    def __init__(self, model: AdaptedModel) -> None:
        self.parameters = list(model.trained().values())
        self.sums: list[Tensor | None] = [None] * len(self.parameters)
        self.taken = 0

    def __enter__(self) -> _Fp32Gradients:
        return self

    def take(self) -> None:
        """Moves the gradients of the micro-batch just done into the sums."""
        self.taken += 1
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
