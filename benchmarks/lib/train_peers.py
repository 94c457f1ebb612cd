"""The other sides of benchmarks/train.py: transformers Trainer and TRL SFTTrainer, as users run them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from benchmarks.lib.train_meters import PeakMemory, StepTimer, folder_bytes, status_bytes
from benchmarks.lib.train_parts import held_out_loss
from benchmarks.lib.train_setup import (
    BIG_VOCAB,
    LEARNING_RATE,
    SMALL,
    Size,
    make_llama,
    read_documents,
)

# DeepSpeed's defaults; HF fills its own "auto".
ZERO2_BY_HF = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "torch_adam": True}},
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 20_000_000, "allgather_bucket_size": 20_000_000},
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def run_hf(folder: Path, size: Size, useful_tokens: int) -> dict[str, Any]:
    """Trainer with its padding collator; as many documents per micro-batch as fill our sequences' tokens."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    _, documents = read_documents(folder)
    before = status_bytes("VmRSS")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder / size.name / "wide"), _lora())
    timer = StepTimer(useful_tokens)
    # Padded to the longest, 4 documents of this length distribution take about our 2 x 256 tokens.
    options = _arguments(folder / "hf", batch_size=2 * size.micro_batch_size)
    options["gradient_accumulation_steps"] = size.accumulation
    arguments = TrainingArguments(**options)
    trainer = _counting(Trainer, timer)(
        model=model,
        args=arguments,
        train_dataset=_truncated(documents, size.seq_len),
        data_collator=_pad_to_longest,
    )
    trainer.train()
    return _figures(trainer, timer, before, folder / "hf", size)


def run_trl(folder: Path, size: Size, useful_tokens: int) -> dict[str, Any]:
    """SFTTrainer with its best-fit packing that keeps the overflow of long documents and its own default of
    recomputing whole layers."""
    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        return {"missing": "trl is not installed"}
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    _, documents = read_documents(folder)
    before = status_bytes("VmRSS")
    timer = StepTimer(useful_tokens)
    options = _arguments(folder / "trl", batch_size=size.micro_batch_size)
    del options["gradient_checkpointing"]
    arguments = SFTConfig(
        **options | {"gradient_accumulation_steps": size.accumulation},
        packing=True,
        packing_strategy="bfd_split",
        max_length=size.seq_len,
        dataset_num_proc=None,
    )
    trainer = _counting(SFTTrainer, timer)(
        model=AutoModelForCausalLM.from_pretrained(folder / size.name / "wide"),
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": documents}),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=_any_tokenizer(), pad_token="p", eos_token="e"
        ),
        peft_config=_lora(),
    )
    trainer.train()
    return {
        **_figures(trainer, timer, before, folder / "trl", size),
        "recomputes": bool(arguments.gradient_checkpointing),
    }


def memory_hf(folder: Path) -> dict[str, Any]:
    """Trainer's peak memory of one step over 2 x 2,048 tokens at 41,510 ids, without DeepSpeed's buffers."""
    from peft import get_peft_model
    from transformers import Trainer, TrainingArguments

    model = get_peft_model(make_llama(BIG_VOCAB), _lora())
    model.enable_input_require_grads()
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(0, BIG_VOCAB, (2048,), generator=generator).tolist() for _ in range(2)]
    options = _arguments(folder / "memory", batch_size=2)
    options |= {
        "deepspeed": None,
        "gradient_accumulation_steps": 1,
        "max_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**options),
        train_dataset=[{"input_ids": document} for document in documents],
        data_collator=_pad_to_longest,
    )
    with PeakMemory() as peak:
        trainer.train()
    return peak.figures()


def _arguments(out: Path, *, batch_size: int) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": SMALL.accumulation,
        "max_steps": 1000,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "deepspeed": ZERO2_BY_HF,
        "save_strategy": "no",
        "report_to": [],
        "logging_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=TARGETS,
        modules_to_save=["embed_tokens", "lm_head"],
        task_type="CAUSAL_LM",
    )


def _counting(trainer: type[Any], timer: StepTimer) -> type[Any]:
    """The trainer, with useful tokens counted from its own batches and a stop when there are enough."""
    from transformers import TrainerCallback

    class Counting(trainer):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            self.counts = torch.zeros(2, dtype=torch.int64)
            super().__init__(**options, callbacks=[_Stop(self)])

        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
            labels = inputs["labels"]
            mask = inputs.get("attention_mask")
            useful = mask.sum() if mask is not None else labels.numel()
            self.counts += torch.tensor([int(useful), labels.numel()])
            return super().compute_loss(model, inputs, *arguments, **options)

    class _Stop(TrainerCallback):  # type: ignore[misc]
        def __init__(self, owner: Counting) -> None:
            self.owner = owner

        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            counts = self.owner.counts.clone()
            torch.distributed.all_reduce(counts)
            self.owner.counts.zero_()
            if timer.step(int(counts[0]), tokens=int(counts[1])):
                control.should_training_stop = True

    return Counting


def _figures(trainer: Any, timer: StepTimer, before_bytes: int, out: Path, size: Size) -> dict[str, Any]:
    """All ranks: the checkpoint is written by all, the rest is the same everywhere."""
    figures = timer.figures(before_bytes)
    if torch.distributed.get_rank() == 0:
        shutil.rmtree(out, ignore_errors=True)
    torch.distributed.barrier()
    trainer._save_checkpoint(trainer.model, trial=None)
    torch.distributed.barrier()
    if size.is_taught:
        figures["loss"] = held_out_loss(trainer.model, out.parent)
    figures["checkpoint_bytes"] = sum(folder_bytes(path) for path in out.glob("checkpoint-*"))
    return figures


def _truncated(documents: list[list[int]], length: int) -> list[dict[str, Any]]:
    """As `tokenizer(..., truncation=True, max_length=...)` leaves them."""
    return [{"input_ids": document[:length]} for document in documents]


def _pad_to_longest(documents: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What DataCollatorForLanguageModeling(mlm=False) gives, without needing a tokenizer."""
    longest = max(len(document["input_ids"]) for document in documents)
    ids = torch.zeros(len(documents), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for number, document in enumerate(documents):
        length = len(document["input_ids"])
        ids[number, :length] = torch.tensor(document["input_ids"])
        mask[number, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def _any_tokenizer() -> Any:
    """SFTTrainer wants one although the documents are tokenised; it is never asked to encode."""
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"p": 0, "e": 1, "u": 2}, unk_token="u"))
