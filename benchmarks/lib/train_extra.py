"""Parts of benchmarks/train.py that run once: memory at 41,510 ids, and bytes between ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lib.collectives import counted_collectives
from benchmarks.lib.train_meters import PeakMemory
from benchmarks.lib.train_parts import HANG_TIMEOUT_S, micro_batches, open_engine
from benchmarks.lib.train_setup import (
    BIG_VOCAB,
    LEARNING_RATE,
    SMALL,
    make_llama,
    ours,
    packed_sequences,
    read_documents,
    recipe_of,
)
from persianmind.engine.groups import parameter_groups
from persianmind.engine.ranks import Ranks
from persianmind.engine.registry import backend
from persianmind.model.adapted import adapt


def memory_ours(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Peak memory of one step over a micro-batch of 2 x 2,048 tokens at 41,510 ids."""
    backend().start(ranks, HANG_TIMEOUT_S)
    recipe = recipe_of(1, SMALL, "train.global_batch_size=2", recompute="full")
    model = adapt(make_llama(32_000), recipe, [[1, 2]] * (BIG_VOCAB - 32_000), 32_000)
    engine = open_engine(model, recipe, ranks)
    ids = np.random.default_rng(0).integers(0, BIG_VOCAB, (2, 2048))
    positions = np.tile(np.arange(2048), (2, 1))
    with PeakMemory() as peak:
        engine.step([{"input_ids": ids, "position_ids": positions, "labels": np.roll(ids, -1, axis=1)}])
    return peak.figures()


def traffic(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Bytes a rank sends in a step at accumulation 16: ours, and DeepSpeed used the ordinary way."""
    import deepspeed

    backend().start(ranks, HANG_TIMEOUT_S)
    _, documents = read_documents(folder)
    sequences = packed_sequences(documents)[: 32 * SMALL.micro_batch_size]
    batches = micro_batches(sequences[ranks.rank :: ranks.world_size], SMALL)
    recipe = recipe_of(1, SMALL, f"train.global_batch_size={32 * SMALL.micro_batch_size}")
    figures: dict[str, Any] = {}
    world = ranks.world_size
    with counted_collectives() as counter:
        engine = open_engine(ours(folder), recipe, ranks)
        for _ in range(2):
            counter.reset()
            engine.step(batches)
        figures |= {"ours": counter.wire_bytes(world), "ours_payload": dict(counter.payload_bytes)}
        engine.close()
        model = ours(folder)
        default, _, _, _ = deepspeed.initialize(
            model=model,
            model_parameters=parameter_groups(model, 0.0),
            config={
                "train_micro_batch_size_per_gpu": SMALL.micro_batch_size,
                "gradient_accumulation_steps": 16,
                "optimizer": {"type": "AdamW", "params": {"lr": LEARNING_RATE, "torch_adam": True}},
                "zero_optimization": {"stage": 2},
            },
        )
        for _ in range(2):
            counter.reset()
            for batch in batches:
                default.backward(default(**{n: torch.from_numpy(a) for n, a in batch.items()}) / 1000)
                default.step()
        figures |= {"default": counter.wire_bytes(world), "default_payload": dict(counter.payload_bytes)}
    return figures
