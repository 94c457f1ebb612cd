"""Samples in results.json of a real run, against transformers called directly on base and export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from persianmind.model.bases import resolve_base
from tests.support.launch import Launched

pytestmark = pytest.mark.integration
# The paper's form, written out: what the recipe's one prompt looks like to the model.
CONTEXT = "This is a conversation with PersianMind, an assistant that answers in Persian and in English."


def answer(folder: Path, tokenizer_dir: Path, prompt: str) -> str:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    model = AutoModelForCausalLM.from_pretrained(folder)
    text = f"{CONTEXT}\nYou: {prompt}\nPersianMind:"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        do_sample=False,
        repetition_penalty=1.1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def test_base_every_stage_and_the_export_in_the_trained_prompt(tiny_run: Launched) -> None:
    samples = tiny_run.results["samples"]
    assert [one["stage"] for one in samples] == ["base", "pretrain", "instruct-1", "instruct-2", "export"]
    texts = {one["stage"]: one["text"] for one in samples}
    prompt = "دل می رود ز دستم"
    assert {one["prompt"] for one in samples} == {prompt}
    base, export = resolve_base("random://llama"), tiny_run.run / "export"
    assert texts["base"] == answer(base, base, prompt)
    assert texts["export"] == texts["instruct-2"] == answer(export, tiny_run.run / "vocab", prompt)
    assert len(set(texts.values())) == 4
