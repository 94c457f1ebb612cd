"""The sides of benchmarks/train.py: each runs in a process (or two) of its own and leaves one JSON file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.nn import functional

from benchmarks.lib.train_meters import StepTimer, folder_bytes, status_bytes
from benchmarks.lib.train_setup import (
    LEARNING_RATE,
    SIZES,
    SMALL,
    Size,
    ours,
    packed_sequences,
    prepare,
    read_documents,
    recipe_of,
)
from persianmind.common.errors import PersianMindError
from persianmind.engine.base import Engine
from persianmind.engine.groups import GROUPS, parameter_groups
from persianmind.engine.ranks import Ranks, ranks_from_environment
from persianmind.engine.registry import backend
from persianmind.model.adapted import AdaptedModel
from persianmind.model.folded_lora import unfold_adapters
from persianmind.recipe import Recipe

HANG_TIMEOUT_S = 1800.0
RATES = dict.fromkeys(GROUPS, LEARNING_RATE)
INT8 = "train.quantize=int8"


def run(part: str, folder: Path, useful_tokens: int) -> None:
    """Runs `SIZE.SIDE`; rank 0 writes `folder/SIZE.SIDE.json`."""
    backend().prepare_environment()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    ranks = ranks_from_environment()
    from benchmarks.lib import train_attention, train_extra, train_levers, train_peers, train_profile

    name, side = part.split(".")
    sizes = [SIZES[one] for one in name.split("+")]
    size = sizes[0]
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "prepare": lambda: prepare(folder, sizes) or {"done": True},
        "ours": lambda: run_ours(folder, size, ranks, useful_tokens),
        "ours-1": lambda: run_ours(folder, size, ranks, useful_tokens),
        "ours-selective": lambda: run_ours(folder, size, ranks, useful_tokens, recompute="selective"),
        "ours-full": lambda: run_ours(folder, size, ranks, useful_tokens, recompute="full"),
        "ours-int8": lambda: run_ours(folder, size, ranks, useful_tokens, INT8),
        "bare": lambda: run_bare(folder, size, useful_tokens),
        "levers": lambda: train_levers.levers(folder, size, ranks, rounds=useful_tokens),
        "profile": lambda: train_profile.profile_step(folder, size, ranks),
        "memory-ours": lambda: train_extra.memory_ours(folder, ranks),
        "traffic": lambda: train_extra.traffic(folder, ranks),
        "attention": lambda: train_attention.attention(folder),
        "hf": lambda: train_peers.run_hf(folder, size, useful_tokens),
        "trl": lambda: train_peers.run_trl(folder, size, useful_tokens),
        "memory-hf": lambda: train_peers.memory_hf(folder),
    }
    try:
        figures = parts[side]()
    except PersianMindError as error:
        figures = {"missing": str(error)}
    if ranks.rank == 0:
        (folder / f"{part}.json").write_text(json.dumps(figures), encoding="utf-8")
    os._exit(0)


def run_ours(
    folder: Path, size: Size, ranks: Ranks, useful_tokens: int, *overrides: str, recompute: str = "off"
) -> dict[str, Any]:
    """This project's engine."""
    recipe = recipe_of(ranks.world_size, size, *overrides, recompute=recompute)
    backend().start(ranks, HANG_TIMEOUT_S)
    held_out, documents = read_documents(folder)
    before = status_bytes("VmRSS")
    engine = open_engine(ours(folder, size, *overrides, recompute=recompute), recipe, ranks)
    timer = StepTimer(useful_tokens)
    for group in steps(packed_sequences(documents, size.seq_len), recipe.train.global_batch_size):
        engine.step(keyed(micro_batches(group[ranks.rank :: ranks.world_size], size)))
        if timer.step(sum(one["useful"] for one in group), tokens=_tokens(group)):
            break
    figures: dict[str, Any] = timer.figures(before)
    if size.is_taught:
        sequences = packed_sequences(held_out, size.seq_len)
        figures["loss"] = engine.summed_loss(_plain(sequences)) / targets_of(sequences)
    figures["checkpoint_bytes"] = _checkpoint_bytes(engine, folder / "checkpoint", ranks)
    return figures


def open_engine(model: AdaptedModel, recipe: Recipe, ranks: Ranks) -> Engine:
    config = backend().resolve_config(backend().default_config, recipe, ranks.world_size)
    engine = backend().open(model, config, ranks)
    engine.set_rates(RATES)
    return engine


class BareLoop:
    """What people write by hand: peft's own LoRA, an ordinary cross-entropy, torch's AdamW and clipping; the
    same trained parameters and the same attention."""

    def __init__(self, model: AdaptedModel) -> None:
        unfold_adapters(model)
        self.model = model
        self.optimizer = torch.optim.AdamW(parameter_groups(model, 0.0), lr=LEARNING_RATE, betas=(0.9, 0.95))
        self.trained = list(model.trained().values())

    def summed(self, batch: dict[str, Any]) -> torch.Tensor:
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        labels = tensors.pop("labels")
        hidden = self.model.hidden_states(**tensors)
        head: Any = self.model.causal_lm.get_output_embeddings()  # type: ignore[operator]
        return functional.cross_entropy(head(hidden).flatten(0, 1), labels.flatten(), reduction="sum")

    def step(self, batches: list[dict[str, Any]]) -> None:
        targets = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
        for batch in batches:
            (self.summed(batch) / targets).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def run_bare(folder: Path, size: Size, useful_tokens: int) -> dict[str, Any]:
    """The loop that people write by hand, one rank."""
    held_out, documents = read_documents(folder)
    before = status_bytes("VmRSS")
    loop = BareLoop(ours(folder, size))
    timer = StepTimer(useful_tokens)
    for group in steps(packed_sequences(documents, size.seq_len), size.micro_batch_size * size.accumulation):
        loop.step(micro_batches(group, size))
        if timer.step(sum(one["useful"] for one in group), tokens=_tokens(group)):
            break
    sequences = packed_sequences(held_out, size.seq_len)
    with torch.no_grad():
        loss = sum(float(loop.summed(batch)) for batch in _plain(sequences)) / targets_of(sequences)
    return {**timer.figures(before), "loss": loss}


def held_out_loss(model: Any, folder: Path) -> float:
    """Mean loss a target of an ordinary HF model over the packed held-out sequences, documents kept apart."""
    sequences = packed_sequences(read_documents(folder)[0], SMALL.seq_len)
    total = 0.0
    model.eval()
    with torch.no_grad():
        for sequence in sequences:
            tensors = {n: torch.from_numpy(sequence[n]) for n in ("input_ids", "position_ids")}
            logits = model(**tensors, use_cache=False).logits
            labels = torch.from_numpy(sequence["labels"]).flatten()
            total += float(functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum"))
    return total / targets_of(sequences)


def steps(sequences: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Groups of sequences, for ever."""
    sequences = sequences[: len(sequences) // size * size]
    endless = cycle(sequences)
    while True:
        yield list(islice(endless, size))


def micro_batches(sequences: list[dict[str, Any]], size: Size) -> list[dict[str, Any]]:
    names = ("input_ids", "position_ids", "labels")
    count = size.micro_batch_size
    groups = [sequences[start : start + count] for start in range(0, len(sequences), count)]
    return [
        {name: np.concatenate([sequence[name] for sequence in group]) for name in names} for group in groups
    ]


def keyed(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With what an int8 base rounds its gradients by: a number of its own for each sequence."""
    rng = np.random.default_rng(0)
    limit = np.iinfo(np.int64).max
    return [{**one, "sample_keys": rng.integers(0, limit, len(one["labels"]))} for one in batches]


def targets_of(sequences: list[dict[str, Any]]) -> int:
    return sum(int((sequence["labels"] >= 0).sum()) for sequence in sequences)


def _plain(sequences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: array for name, array in sequence.items() if name != "useful"} for sequence in sequences]


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
