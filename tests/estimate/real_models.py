"""Real models that are small enough to run, and an independent meter of allocations: torch's profiler."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.documents import model_inputs
from persianmind.model.loss import IGNORED
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe

VOCAB, ADDED, DOCUMENTS = 2048, 256, 4


@dataclass(frozen=True)
class Shape:
    """One case. checkpointing: the recipe's gradient_checkpointing."""

    tied: bool
    quantize: str
    checkpointing: str
    seq_len: int
    layers: int = 3

    @property
    def config(self) -> dict[str, Any]:
        """config.json of its base."""
        return {
            "model_type": "llama",
            "vocab_size": VOCAB,
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": self.layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": self.tied,
        }

    @property
    def recipe(self) -> Recipe:
        """Adapters of rank 8, chunks of 128 tokens."""
        return load_recipe(
            "persianmind-7b",
            [
                f"train.quantize={self.quantize}",
                f"train.gradient_checkpointing={self.checkpointing}",
                f"data.seq_len={self.seq_len}",
                "train.loss_chunk_tokens=128",
            ],
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of the documents of its sequence."""
        return (self.seq_len // DOCUMENTS,) * DOCUMENTS

    def load(self, folder: Path) -> AdaptedModel:
        """Really loaded from a folder, in bf16, as a run does it."""
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**self.config))
        model.to(torch.bfloat16).save_pretrained(folder)
        return build_adapted(folder, self.recipe, [[1]] * ADDED, VOCAB).train()


def packed(seq_len: int, document: int) -> Mapping[str, Any]:
    """One sequence of documents of equal length."""
    positions = np.tile(np.arange(document), seq_len // document)[None]
    labels = np.where(positions == document - 1, IGNORED, 1)
    return {
        "input_ids": np.arange(seq_len)[None] % (VOCAB + ADDED),
        "position_ids": positions,
        "labels": labels,
        "sample_keys": np.zeros(1, dtype=np.int64),
    }


def measured_peak(model: AdaptedModel, shape: Shape, folder: Path) -> int:
    """Bytes that a micro-batch held at once beyond the model, by the profiler's events."""
    batch = packed(shape.seq_len, shape.lengths[0])

    def micro_batch() -> None:
        inputs = model_inputs(batch, torch.device("cpu"))
        (model(**inputs) * 0.5).backward()

    micro_batch()  # what is made once and kept is not of a micro-batch
    for value in model.parameters():
        value.grad = None
    return profiled_peak(micro_batch, folder / "trace.json")


def profiled_peak(run: Callable[[], object], file: Path) -> int:
    """The highest sum of allocations and frees while `run` runs."""
    gc.collect()
    gc.disable()  # models of earlier tests, collected in between, would count as given back by this run
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
    finally:
        gc.enable()
    profiler.export_chrome_trace(str(file))
    events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    held = peak = 0
    for event in sorted((one for one in events if one.get("name") == "[memory]"), key=lambda one: one["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
