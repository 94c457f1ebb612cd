"""What DeepSpeed's JSON may say: one table, docs/deepspeed.md in code.

A key that is left out means the same as "auto", so DeepSpeed's own defaults decide nothing that the recipe
decides. Every key is in exactly one table: the recipe decides it, this engine needs one value of it, the user
may choose it freely (here), nothing depends on it, or it may only stand there turned off (json_off.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from persianmind.common.errors import ConfigConflictError, RecipeError
from persianmind.engine.schedule import gradient_accumulation_steps
from persianmind.recipe import Recipe

AUTO = "auto"


class JsonKey(Protocol):
    """The rule of one key."""

    def settle(self, where: str, stated: Any) -> Any:
        """The value DeepSpeed gets; None where the key is left to DeepSpeed.

        Args:
            where: the file and the key, for the error.
            stated: what the file says; "auto" where it says nothing.

        Raises:
            RecipeError: that value cannot be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class DecidedKey:
    """The recipe decides. also: other values that mean the same."""

    value: Any
    recipe_place: str
    also: tuple[Any, ...] = ()

    def settle(self, where: str, stated: Any) -> Any:
        """The recipe's value.

        Raises:
            ConfigConflictError: the file says something else; both places are named.
        """
        if stated == AUTO or any(_is_same(stated, right) for right in (self.value, *self.also)):
            return self.value
        raise ConfigConflictError(
            f"{where}={json.dumps(stated)} but the recipe's {self.recipe_place} makes it "
            f'{json.dumps(self.value)}; change one of them, or write "auto" in the JSON'
        )


@dataclass(frozen=True, slots=True)
class FixedKey:
    """Only one value works with this engine. is_default: DeepSpeed takes it by itself, so that the key is
    passed on only where the file has it (older versions do not know every key)."""

    value: Any
    reason: str
    is_default: bool = True

    def settle(self, where: str, stated: Any) -> Any:
        """The one value.

        Raises:
            RecipeError: the file says something else.
        """
        if stated == AUTO:
            return None if self.is_default else self.value
        if _is_same(stated, self.value):
            return self.value
        raise RecipeError(
            f"{where}={json.dumps(stated)}, which this trainer cannot use: {self.reason}; write "
            f"{json.dumps(self.value)} or take it out"
        )


@dataclass(frozen=True, slots=True)
class FreeKey:
    """How DeepSpeed works, not what is trained: any value of the default's type."""

    default: bool | int

    def settle(self, where: str, stated: Any) -> Any:
        """The stated value.

        Raises:
            RecipeError: it is of another type.
        """
        if stated == AUTO:
            return self.default
        if isinstance(self.default, bool):
            if isinstance(stated, bool):
                return stated
            raise RecipeError(f"{where}={json.dumps(stated)}; write true or false")
        is_number = isinstance(stated, int | float) and not isinstance(stated, bool)
        if is_number and stated == stated // 1 and stated > 0:
            return int(stated)  # people write 2e8
        raise RecipeError(f"{where}={json.dumps(stated)}; write a whole number above 0")


def decided_keys(recipe: Recipe, world_size: int) -> dict[str, JsonKey]:
    """What the recipe decides, by dotted place in the JSON."""
    train = recipe.train
    accumulation = gradient_accumulation_steps(train.global_batch_size, train.micro_batch_size, world_size)
    # DeepSpeed only ever sees whole batches and wants its three numbers to agree; ours need not divide.
    whole = train.micro_batch_size * accumulation * world_size
    ranks = f"train.global_batch_size={train.global_batch_size} over {world_size} ranks"
    params = "optimizer.params"
    return {
        "train_batch_size": DecidedKey(whole, ranks, also=(train.global_batch_size,)),
        "train_micro_batch_size_per_gpu": DecidedKey(train.micro_batch_size, "train.micro_batch_size"),
        "gradient_accumulation_steps": DecidedKey(accumulation, ranks),
        "gradient_clipping": DecidedKey(train.max_grad_norm, "train.max_grad_norm"),
        "bf16.enabled": DecidedKey(train.precision == "bf16", "train.precision"),
        "communication_data_type": DecidedKey(
            "bf16" if train.precision == "bf16" else "fp32", "train.precision"
        ),
        f"{params}.lr": DecidedKey(train.learning_rate, "train.learning_rate"),
        f"{params}.betas": DecidedKey(list(train.adam_betas), "train.adam_betas"),
        f"{params}.eps": DecidedKey(train.adam_epsilon, "train.adam_epsilon"),
        f"{params}.weight_decay": DecidedKey(train.weight_decay, "train.weight_decay"),
    }


_SUMS = "gradients are summed over ranks and divided by all targets here"
_MASTERS = "what is trained has fp32 masters and moments"
FIXED_KEYS: Mapping[str, JsonKey] = {
    "zero_optimization.stage": FixedKey(2, "it is built on ZeRO stage 2", is_default=False),
    "zero_optimization.load_from_fp32_weights": FixedKey(True, "resuming is exact from the masters alone"),
    "zero_optimization.ignore_unused_parameters": FixedKey(True, "a stage may train a part of them"),
    "zero_optimization.compute_grad_norm": FixedKey(True, "clipping and the log need the norm"),
    "zero_optimization.elastic_checkpoint": FixedKey(False, "resuming on other ranks is its own"),
    "zero_optimization.legacy_stage1": FixedKey(False, "it is built on ZeRO stage 2"),
    "zero_optimization.parameter_alignment": FixedKey(False, "its checkpoints were not tried with it"),
    "zero_optimization.round_robin_gradients": FixedKey(
        False, "its checkpoints are read by the order of the parameters"
    ),
    "optimizer.type": FixedKey("AdamW", "AdamW is its optimizer", is_default=False),
    "optimizer.params.torch_adam": FixedKey(
        True, "DeepSpeed's fused Adam needs a CUDA compiler", is_default=False
    ),
    "optimizer.params.adam_w_mode": FixedKey(True, "AdamW is its optimizer"),
    "optimizer.legacy_fusion": FixedKey(False, "AdamW is its optimizer"),
    "bf16.check_grad_overflow": FixedKey(True, "a step that is not finite must be left out"),
    "bf16.immediate_grad_update": FixedKey(False, _SUMS),
    "bf16.bf16_master_weights_and_grads": FixedKey(False, _MASTERS),
    "bf16.bf16_optimizer_states": FixedKey(False, _MASTERS),
    "prescale_gradients": FixedKey(False, _SUMS),
    "gradient_predivide_factor": FixedKey(1.0, _SUMS),
    "gradient_allreduce_op": FixedKey("mean", _SUMS),
}

FREE_KEYS: Mapping[str, JsonKey] = {
    "zero_optimization.contiguous_gradients": FreeKey(True),
    "zero_optimization.overlap_comm": FreeKey(False),
    "zero_optimization.reduce_scatter": FreeKey(True),
    "zero_optimization.allgather_partitions": FreeKey(True),
    "zero_optimization.reduce_bucket_size": FreeKey(20_000_000),
    "zero_optimization.allgather_bucket_size": FreeKey(20_000_000),
    "zero_optimization.use_multi_rank_bucket_allreduce": FreeKey(False),
    "steps_per_print": FreeKey(1_000_000_000),
    "wall_clock_breakdown": FreeKey(False),
    "memory_breakdown": FreeKey(False),
    "dump_state": FreeKey(False),
    # The throughput timer makes the host wait for the GPU at every forward pass.
    "timers.throughput.enabled": FreeKey(False),
    "timers.throughput.synchronized": FreeKey(True),
}


def _is_same(stated: Any, right: Any) -> bool:
    """Equality of JSON values: true is not 1, "adamw" is "AdamW" (DeepSpeed does not look at the case)."""
    if isinstance(stated, list) and isinstance(right, list):
        pairs = zip(stated, right, strict=False)
        return len(stated) == len(right) and all(_is_same(one, other) for one, other in pairs)
    if isinstance(stated, bool) or isinstance(right, bool):
        return stated is right
    if isinstance(stated, str) and isinstance(right, str):
        return stated.lower() == right.lower()
    return bool(stated == right)
