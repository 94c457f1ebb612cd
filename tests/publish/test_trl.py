"""TRL's DPO trainer, as plain users run it: it loads an export and takes steps on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.exports import hand_made_export

pytestmark = pytest.mark.more
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"question {number}: what is a sentence?"}],
        "chosen": [{"role": "assistant", "content": "A group of words."}],
        "rejected": [{"role": "assistant", "content": "No idea at all, ask another one."}],
    }
    for number in range(4)
]


def test_dpo_takes_two_steps_on_an_export(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    export = hand_made_export(tmp_path / "export")
    tokenizer = AutoTokenizer.from_pretrained(export)
    model = AutoModelForCausalLM.from_pretrained(export)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(tmp_path / "dpo"),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-3,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer,
    )
    first = trainer.train_dataset[0]
    ids = tokenizer.apply_chat_template(PAIRS[0]["prompt"] + PAIRS[0]["chosen"])["input_ids"]
    assert first["prompt_ids"] + first["chosen_ids"] == list(ids)
    assert tokenizer.decode(first["chosen_ids"]) == " A group of words.<|end|>"
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 2
    # Before the first step policy and reference are one model: -log sigmoid(0).
    assert losses[0] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-3)
    assert losses[1] < losses[0]
    moved = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) == len(before)
