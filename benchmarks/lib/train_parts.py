"""The sides of benchmarks/train.py: each runs in a process (or two) of its own and leaves one JSON file."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.nn import functional

from benchmarks.lib.collectives import counted_collectives
from benchmarks.lib.train_setup import (
    ACCUMULATION,
    BIG_VOCAB,
    LEARNING_RATE,
    MICRO_BATCH_SIZE,
    ours,
    packed_sequences,
    prepare,
    read_documents,
    recipe_of,
)
from persianmind.engine.base import Engine
from persianmind.engine.groups import GROUPS, parameter_groups
from persianmind.engine.ranks import Ranks, ranks_from_environment
from persianmind.engine.registry import backend
from persianmind.model.adapted import AdaptedModel
from persianmind.recipe import Recipe

HANG_TIMEOUT_S = 1800.0
RATES = dict.fromkeys(GROUPS, LEARNING_RATE)


def run(part: str, folder: Path, useful_tokens: int) -> None:
    """Runs one side; rank 0 writes `folder/part.json`."""
    backend().prepare_environment()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    ranks = ranks_from_environment()
    from benchmarks.lib import train_attention, train_peers

    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "prepare": lambda: prepare(folder) or {"done": True},
        "ours": lambda: run_ours(folder, ranks, useful_tokens),
        "ours-1": lambda: run_ours(folder, ranks, useful_tokens),
        "bare": lambda: run_bare(folder, useful_tokens),
        "memory-ours": lambda: memory_ours(folder, ranks),
        "traffic": lambda: traffic(folder, ranks),
        "attention": lambda: train_attention.attention(folder),
        "hf": lambda: train_peers.run_hf(folder, useful_tokens),
        "trl": lambda: train_peers.run_trl(folder, useful_tokens),
        "memory-hf": lambda: train_peers.memory_hf(folder),
    }
    figures = parts[part]()
    if ranks.rank == 0:
        (folder / f"{part}.json").write_text(json.dumps(figures), encoding="utf-8")
    os._exit(0)


def run_ours(folder: Path, ranks: Ranks, useful_tokens: int) -> dict[str, Any]:
    """This project's engine."""
    backend().start(ranks, HANG_TIMEOUT_S)
    held_out, documents = read_documents(folder)
    recipe = recipe_of(ranks.world_size)
    before = status_bytes("VmRSS")
    engine = _open_engine(ours(folder), recipe, ranks)
    timer = StepTimer(useful_tokens)
    for group in _steps(packed_sequences(documents), recipe.train.global_batch_size):
        engine.step(_micro_batches(group[ranks.rank :: ranks.world_size]))
        if timer.step(sum(one["useful"] for one in group), tokens=_tokens(group)):
            break
    sequences = packed_sequences(held_out)
    loss = engine.summed_loss(_plain(sequences)) / _targets(sequences)
    size = _checkpoint_bytes(engine, folder / "checkpoint", ranks)
    return {**timer.figures(before), "loss": loss, "checkpoint_bytes": size}


def _open_engine(model: AdaptedModel, recipe: Recipe, ranks: Ranks) -> Engine:
    config = backend().resolve_config(backend().default_config, recipe, ranks.world_size)
    engine = backend().open(model, config, ranks)
    engine.set_rates(RATES)
    return engine


def run_bare(folder: Path, useful_tokens: int) -> dict[str, Any]:
    """The same modules and mathematics in a plain loop: ordinary cross-entropy, torch AdamW and clipping."""
    held_out, documents = read_documents(folder)
    before = status_bytes("VmRSS")
    model = ours(folder)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0), lr=LEARNING_RATE, betas=(0.9, 0.95))
    trained = list(model.trained().values())
    timer = StepTimer(useful_tokens)

    def summed(batch: dict[str, Any]) -> torch.Tensor:
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        labels = tensors.pop("labels")
        hidden = model.hidden_states(**tensors)
        head: Any = model.causal_lm.get_output_embeddings()  # type: ignore[operator]
        return functional.cross_entropy(head(hidden).flatten(0, 1), labels.flatten(), reduction="sum")

    for group in _steps(packed_sequences(documents), MICRO_BATCH_SIZE * ACCUMULATION):
        targets = _targets(group)
        for batch in _micro_batches(group):
            (summed(batch) / targets).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if timer.step(sum(one["useful"] for one in group), tokens=_tokens(group)):
            break
    sequences = packed_sequences(held_out)
    with torch.no_grad():
        loss = sum(float(summed(batch)) for batch in _plain(sequences)) / _targets(sequences)
    return {**timer.figures(before), "loss": loss}


def memory_ours(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Peak memory of one step over a micro-batch of 2 x 2,048 tokens at 41,510 ids."""
    from benchmarks.lib.train_setup import make_llama
    from persianmind.model.adapted import adapt

    backend().start(ranks, HANG_TIMEOUT_S)
    recipe = recipe_of(1, "train.global_batch_size=2", "train.gradient_checkpointing=full")
    model = adapt(make_llama(32_000), recipe, [[1, 2]] * (BIG_VOCAB - 32_000), 32_000)
    engine = _open_engine(model, recipe, ranks)
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
    sequences = packed_sequences(documents)[: 32 * MICRO_BATCH_SIZE]
    batches = _micro_batches(sequences[ranks.rank :: ranks.world_size])
    recipe = recipe_of(1, f"train.global_batch_size={32 * MICRO_BATCH_SIZE}")
    figures: dict[str, Any] = {}
    world = ranks.world_size
    with counted_collectives() as counter:
        engine = _open_engine(ours(folder), recipe, ranks)
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
                "train_micro_batch_size_per_gpu": MICRO_BATCH_SIZE,
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


class StepTimer:
    """Useful tokens a second of all steps but the first, until enough tokens were useful."""

    def __init__(self, useful_tokens: int) -> None:
        self.limit = useful_tokens
        self.useful = self.tokens = self.timed_useful = self.steps = 0
        self.started_s = 0.0
        self.ended_s = 0.0

    def step(self, useful: int, *, tokens: int) -> bool:
        """After each optimizer step, with the numbers of all ranks together; True: enough."""
        self.ended_s = time.perf_counter()
        self.steps += 1
        self.useful += useful
        self.tokens += tokens
        if self.steps == 1:
            self.started_s = self.ended_s
        else:
            self.timed_useful += useful
        return self.useful >= self.limit

    def figures(self, before_bytes: int) -> dict[str, float]:
        """What all sides report. before_bytes: memory with everything imported and no model yet."""
        seconds = self.ended_s - self.started_s
        return {
            "useful_tokens_per_s": self.timed_useful / seconds,
            "step_s": seconds / (self.steps - 1),
            "steps": self.steps,
            "useful_tokens": self.useful,
            "fill": self.useful / self.tokens,
            "peak_bytes": status_bytes("VmHWM"),
            "above_imports_bytes": status_bytes("VmHWM") - before_bytes,
        }


class PeakMemory:
    """Highest memory of this process within the block, and how far above its beginning that is."""

    def __enter__(self) -> PeakMemory:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present size
        self.before = status_bytes("VmRSS")
        return self

    def __exit__(self, *exc: object) -> None:
        self.peak = status_bytes("VmHWM")

    def figures(self) -> dict[str, int]:
        """In bytes."""
        return {"peak_bytes": self.peak, "above_model_bytes": self.peak - self.before}


def folder_bytes(folder: Path) -> int:
    """All files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def held_out_loss(model: Any, folder: Path) -> float:
    """Mean loss a target of an ordinary HF model over the packed held-out sequences, documents kept apart."""
    sequences = packed_sequences(read_documents(folder)[0])
    total = 0.0
    model.eval()
    with torch.no_grad():
        for sequence in sequences:
            tensors = {n: torch.from_numpy(sequence[n]) for n in ("input_ids", "position_ids")}
            logits = model(**tensors, use_cache=False).logits
            labels = torch.from_numpy(sequence["labels"]).flatten()
            total += float(functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum"))
    return total / _targets(sequences)


def _steps(sequences: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Groups of sequences, for ever."""
    sequences = sequences[: len(sequences) // size * size]
    endless = cycle(sequences)
    while True:
        yield list(islice(endless, size))


def _micro_batches(sequences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("input_ids", "position_ids", "labels")
    groups = [
        sequences[start : start + MICRO_BATCH_SIZE] for start in range(0, len(sequences), MICRO_BATCH_SIZE)
    ]
    return [
        {name: np.concatenate([sequence[name] for sequence in group]) for name in names} for group in groups
    ]


def _plain(sequences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: array for name, array in sequence.items() if name != "useful"} for sequence in sequences]


def _targets(sequences: list[dict[str, Any]]) -> int:
    return sum(int((sequence["labels"] >= 0).sum()) for sequence in sequences)


def _tokens(sequences: list[dict[str, Any]]) -> int:
    return sum(sequence["input_ids"].size for sequence in sequences)


def _checkpoint_bytes(engine: Engine, folder: Path, ranks: Ranks) -> int:
    """What a checkpoint of all ranks takes."""
    if ranks.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    torch.distributed.barrier()
    engine.snapshot().write(folder)
    torch.distributed.barrier()
    return folder_bytes(folder)


def status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")
