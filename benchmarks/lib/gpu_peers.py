"""The sides of the `peers` part of `make gpu-check`: our engine, transformers Trainer and TRL on one device.

One shape of random weights, the same documents of web-like length, LoRA rank 8 and a vocabulary table that
is trained: the new embeddings with us, the whole table (modules_to_save) with the others, as their users do.
Each runs in a process of its own; useful tokens per second leave out the first step.
"""

from __future__ import annotations

import os
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from benchmarks.lib import train_peers
from benchmarks.lib.train_meters import StepTimer, status_bytes
from benchmarks.lib.train_setup import packed_sequences
from persianmind.gpucheck.engine_steps import open_shape
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import multiplies_bf16
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import MEDIAN_RATIO, SIGMA, TINY, LlamaShape
from persianmind.gpucheck.timing import memory_bytes, reset_peak
from persianmind.model.adapted import DTYPES

# About a billion weights: it fits every GPU that this project is for.
MIDDLE = LlamaShape(2048, 5632, 16, 32, 32, vocab=32_000, added=9_510, seq_len=2048)
USEFUL_TOKENS, SMALL_USEFUL_TOKENS = 100_000, 1_000
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def measure_ours(setting: PartSetting, findings: Findings) -> None:
    """Packed sequences, one per step."""
    shape, precision, timer = _asked(setting)
    before = status_bytes("VmRSS")
    opened = open_shape(shape, precision, "none")
    reset_peak(opened.device)
    for sequence in cycle(packed_sequences(_documents(shape), shape.seq_len)):
        batch = {name: sequence[name] for name in ("input_ids", "position_ids", "labels")}
        opened.engine.step([batch])
        if timer.step(sequence["useful"], tokens=shape.seq_len):
            break
    findings.record(**timer.figures(before), **memory_bytes(opened.device))


def measure_hf(setting: PartSetting, findings: Findings) -> None:
    """Trainer with a padding collator; as many documents per step as make about a sequence of ours."""
    from peft import get_peft_model
    from transformers import Trainer, TrainingArguments

    shape, precision, timer = _asked(setting)
    options = _arguments(setting, precision, batch_size=2)
    before = status_bytes("VmRSS")
    model = get_peft_model(_wide_model(shape, precision, setting), train_peers._lora())
    model.enable_input_require_grads()
    reset_peak(setting.device)
    trainer = train_peers._counting(Trainer, timer)(
        model=model,
        args=TrainingArguments(**options),
        train_dataset=[{"input_ids": document[: shape.seq_len]} for document in _documents(shape)],
        data_collator=train_peers._pad_to_longest,
    )
    trainer.train()
    findings.record(**timer.figures(before), **memory_bytes(setting.device))


def measure_trl(setting: PartSetting, findings: Findings) -> None:
    """SFTTrainer with its best-fit packing that keeps the overflow of long documents."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    shape, precision, timer = _asked(setting)
    options = _arguments(setting, precision, batch_size=1)
    before = status_bytes("VmRSS")
    reset_peak(setting.device)
    trainer = train_peers._counting(SFTTrainer, timer)(
        model=_wide_model(shape, precision, setting),
        args=SFTConfig(
            **options,
            packing=True,
            packing_strategy="bfd_split",
            max_length=shape.seq_len,
            dataset_num_proc=None,
        ),
        train_dataset=Dataset.from_dict({"input_ids": _documents(shape)}),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=train_peers._any_tokenizer(), pad_token="p", eos_token="e"
        ),
        peft_config=train_peers._lora(),
    )
    trainer.train()
    findings.record(**timer.figures(before), **memory_bytes(setting.device))


def _asked(setting: PartSetting) -> tuple[LlamaShape, str, StepTimer]:
    if setting.small:
        return TINY, "fp32", StepTimer(SMALL_USEFUL_TOKENS)
    return MIDDLE, "bf16" if multiplies_bf16(setting.device) else "fp32", StepTimer(USEFUL_TOKENS)


def _documents(shape: LlamaShape) -> list[list[int]]:
    rng = np.random.default_rng(50)
    lengths = rng.lognormal(np.log(shape.seq_len * MEDIAN_RATIO), SIGMA, 400).astype(int) + 2
    total = shape.vocab + shape.added
    return [rng.integers(0, total, min(length, 4 * shape.seq_len)).tolist() for length in lengths]


def _wide_model(shape: LlamaShape, precision: str, setting: PartSetting) -> Any:
    """An ordinary model whose tables have all ids."""
    from transformers import AutoModelForCausalLM

    config = shape.config()
    config.vocab_size = shape.vocab + shape.added
    with torch.device(setting.device):
        return AutoModelForCausalLM.from_config(config, dtype=DTYPES[precision], attn_implementation="sdpa")


def _arguments(setting: PartSetting, precision: str, *, batch_size: int) -> dict[str, Any]:
    """The benchmark's, on one device without DeepSpeed; with full recompute, as ours."""
    for name in RANK_VARIABLES:  # Trainer would wrap the model for ranks that are not there
        os.environ.pop(name, None)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    return {
        **train_peers._arguments(Path(setting.folder) / "out", batch_size=batch_size),
        "deepspeed": None,
        "gradient_accumulation_steps": 1,
        "use_cpu": setting.small,
        "bf16": precision == "bf16",
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }
