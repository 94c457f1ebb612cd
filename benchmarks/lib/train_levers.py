"""One rank under each lever, a step of each in turn in one process, so that all meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.lib.train_parts import (
    HANG_TIMEOUT_S,
    INT8,
    BareLoop,
    keyed,
    micro_batches,
    open_engine,
    steps,
)
from benchmarks.lib.train_setup import Size, ours, packed_sequences, read_documents, recipe_of
from persianmind.common.errors import PersianMindError
from persianmind.engine.base import Engine
from persianmind.engine.ranks import Ranks
from persianmind.engine.registry import backend

# name -> (recompute, overrides)
ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "off": ("off", ()),
    "selective": ("selective", ()),
    "full": ("full", ()),
    "int8": ("off", (INT8,)),
    "int8-full": ("full", (INT8,)),
}
COUNTED = ("off", "selective", "full")
BARE = {"bare": "off", "bare-full": "full"}


def levers(folder: Path, size: Size, ranks: Ranks, *, rounds: int) -> dict[str, Any]:
    """Seconds of each step by lever, the counted FLOPs, and what cannot run with the reason."""
    backend().start(ranks, HANG_TIMEOUT_S)
    sides: dict[str, Callable[[list[dict[str, Any]]], Any]] = {}
    missing: dict[str, str] = {}
    for name, (recompute, overrides) in ENGINES.items():
        try:
            recipe = recipe_of(1, size, *overrides, recompute=recompute)
            model = ours(folder, size, *overrides, recompute=recompute)
        except PersianMindError as error:
            missing[name] = str(error)
            continue
        sides[name] = _keyed_step(open_engine(model, recipe, ranks))
    for name, recompute in BARE.items():
        sides[name] = BareLoop(ours(folder, size, recompute=recompute)).step
    groups = steps(packed_sequences(read_documents(folder)[1], size.seq_len), size.micro_batch_size)
    batches = micro_batches(next(groups), size)
    flops = {}
    for name, step in sides.items():  # the first step of each, which is not timed
        if name in COUNTED:
            with FlopCounterMode(display=False) as counter:
                step(batches)
            flops[name] = counter.get_total_flops()
        else:
            step(batches)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        batches = micro_batches(next(groups), size)
        for name in sides if number % 2 == 0 else reversed(sides):
            started_s = time.perf_counter()
            sides[name](batches)
            seconds[name].append(time.perf_counter() - started_s)
    return {"seconds": seconds, "flops": flops, "missing_levers": missing}


def _keyed_step(engine: Engine) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda batches: engine.step(keyed(batches))
