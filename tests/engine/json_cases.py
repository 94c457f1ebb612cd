"""DeepSpeed JSON as people have it, for test_json_keys.py and json_worker.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from persianmind.engine.deepspeed.json_keys import FIXED_KEYS, FREE_KEYS, FixedKey, FreeKey
from tests.support.launch import ROOT

# None of these is DeepSpeed's default, and each changes what is trained.
RECIPE = [
    "train.precision=fp32",
    "train.global_batch_size=2",
    "train.adam_betas=[0.7,0.9]",
    "train.adam_epsilon=1e-3",
    "train.weight_decay=0.3",
    "train.max_grad_norm=0.05",
]

AUTOS = {
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}
ADAMW_AUTO = {
    "type": "AdamW",
    "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
}
FP16_AUTO = {
    "enabled": "auto",
    "loss_scale": 0,
    "loss_scale_window": 1000,
    "initial_scale_power": 16,
    "hysteresis": 2,
    "min_loss_scale": 1,
}
# 2e8 as a rule; smaller here, two ranks of a test need not take gigabytes for it.
BUCKETS = {
    "stage": 2,
    "allgather_partitions": True,
    "allgather_bucket_size": 2e6,
    "overlap_comm": True,
    "reduce_scatter": True,
    "reduce_bucket_size": 2e6,
    "contiguous_gradients": True,
}
# As the Trainer's documentation, LLaMA-Factory and Chinese-LLaMA-Alpaca have them.
HF_TRAINER: dict[str, Any] = {
    "fp16": FP16_AUTO,
    "bf16": {"enabled": "auto"},
    "optimizer": ADAMW_AUTO,
    "zero_optimization": BUCKETS,
    **AUTOS,
    "steps_per_print": 2000,
    "wall_clock_breakdown": False,
}
LLAMA_FACTORY: dict[str, Any] = {
    **AUTOS,
    "zero_allow_untested_optimizer": True,
    "fp16": FP16_AUTO,
    "bf16": {"enabled": "auto"},
    "zero_optimization": {**BUCKETS, "overlap_comm": False, "round_robin_gradients": True},
}
TINY_LOSS_SCALE: dict[str, Any] = {
    **AUTOS,
    "fp16": {**FP16_AUTO, "loss_scale_window": 100, "min_loss_scale": 1e-10},
    "zero_optimization": {**BUCKETS, "reduce_bucket_size": "auto"},
    "steps_per_print": 2000,
}
SCHEDULER = {
    "type": "WarmupLR",
    "params": {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"},
}


def at(place: str, value: Any) -> dict[str, Any]:
    """A JSON object that says one thing."""
    for name in reversed(place.split(".")):
        value = {name: value}
    return dict(value)


def _together(values: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object that says all of it."""
    found: dict[str, Any] = {}
    for place, value in values.items():
        *parents, last = place.split(".")
        node = found
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return found


_FIXED = {place: key.value for place, key in FIXED_KEYS.items() if isinstance(key, FixedKey)}
_OTHER = {  # every key that people may choose, at another value than the default
    place: (not key.default) if isinstance(key.default, bool) else 1000
    for place, key in FREE_KEYS.items()
    if isinstance(key, FreeKey)
}
# Each must train exactly what the recipe says; what only prints and times is switched on all at once.
TRAINED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "shipped": json.loads((ROOT / "ds_configs" / "zero2.json").read_text(encoding="utf-8")),
    "hf_trainer": HF_TRAINER,
    "tiny_loss_scale": TINY_LOSS_SCALE,
    **{place: at(place, value) for place, value in _OTHER.items() if place.startswith("zero_")},
    "printing": _together({place: _OTHER[place] for place in _OTHER if not place.startswith("zero_")}),
    "fixed": _together(_FIXED),
}

# The same without our filling: DeepSpeed's defaults.
UNFILLED: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "optimizer": {"type": "AdamW", "params": {"torch_adam": True, "weight_decay": 0.01}},
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 20000000, "allgather_bucket_size": 20000000},
}
