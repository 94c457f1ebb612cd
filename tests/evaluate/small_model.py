"""A small real model of transformers for tests: the random Llama, as one that is measured."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from persianmind.data.chat_form import ChatForm
from persianmind.evaluate.evaluated import EvaluatedModel
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.bases import resolve_base
from persianmind.tokenizer import FolderTokenizer


@cache
def base() -> Path:
    """Its folder."""
    return resolve_base("random://llama")


def small_model(*, form: bool = True, **options: Any) -> EvaluatedModel:
    """It, in fp32; without a prompt form where that is asked for."""
    tokenizer = FolderTokenizer(base())
    causal_lm = AutoModelForCausalLM.from_pretrained(base(), dtype=torch.float32)
    return EvaluatedModel(
        name="small",
        causal_lm=causal_lm,
        tokenizer=tokenizer,
        fingerprint="small",
        form=ChatForm.of(tokenizer, "persianmind", PERSIAN.prompt) if form else None,
        **{"window": 512, **options},
    )


def plain_log_likelihood(causal_lm: Any, context: tuple[int, ...], continuation: tuple[int, ...]) -> float:
    """By the model's own forward over the whole, nothing batched, nothing cached."""
    with torch.no_grad():
        logits = causal_lm(input_ids=torch.tensor([context + continuation]), use_cache=False).logits
    log_probs = logits[0].double().log_softmax(-1)
    return float(sum(log_probs[len(context) - 1 + i, token] for i, token in enumerate(continuation)))
