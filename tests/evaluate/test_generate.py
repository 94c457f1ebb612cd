"""Greedy samples against transformers called directly, and against a decoding loop written out here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from persianmind.evaluate.generate import generate
from persianmind.model.bases import resolve_base

# The last one is long: in what follows, tokens that stood there would come again.
PROMPTS = ["The import system", "for x in range(10):", "دل می‌رود ز دستم", "class A: pass\n" * 30]
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def base() -> Path:
    return resolve_base("random://llama")


def test_equals_transformers_called_directly(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    expected = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.1,
            pad_token_id=tokenizer.eos_token_id,
        )[0]
        expected.append(
            tokenizer.decode(ids[len(inputs["input_ids"][0]) :], skip_special_tokens=True).strip()
        )
    assert generate(base, PROMPTS, max_new_tokens=NEW_TOKENS) == expected
    assert all(expected) and len(set(expected)) == len(PROMPTS)


def greedy(base: Path, prompt: str, penalty: float) -> str:
    """The likeliest next token, again and again; logits of tokens that stand there are moved away from it by
    `penalty` (Keskar et al. 2019, arXiv 1909.05858)."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    start = len(ids)
    while len(ids) < start + NEW_TOKENS:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        for seen in set(ids):
            logits[seen] = logits[seen] / penalty if logits[seen] > 0 else logits[seen] * penalty
        ids.append(int(logits.argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True)).strip()


def test_is_greedy_with_the_repetition_penalty_of_the_paper(base: Path) -> None:
    texts = generate(base, PROMPTS, max_new_tokens=NEW_TOKENS)
    assert texts == [greedy(base, prompt, penalty=1.1) for prompt in PROMPTS]
    assert texts != [greedy(base, prompt, penalty=1.0) for prompt in PROMPTS]  # it shows in these texts


def test_the_prompt_is_not_part_of_the_text_and_the_length_is_kept(base: Path) -> None:
    [long], [short] = (generate(base, PROMPTS[:1], max_new_tokens=length) for length in (8, 2))
    assert long.startswith(short) and len(long) > len(short) and not long.startswith(PROMPTS[0])


def test_no_prompt_gives_no_text(base: Path) -> None:
    assert generate(base, [], max_new_tokens=4) == []
