"""Greedy samples from an exported folder, loaded by transformers alone: proof that it stands on its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REPETITION_PENALTY = 1.1


def generate(
    folder: Path, prompts: Sequence[str], *, max_new_tokens: int, device: torch.device | str = "cpu"
) -> list[str]:
    """The continuation of each prompt, greedy with repetition penalty 1.1 (the paper's decoding)."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    # By its tokenizer.json alone: AutoTokenizer imports optional packages for some model types.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    model.to(device).eval()
    texts = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(device)
        with torch.no_grad():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_new_tokens,
                do_sample=False,
                repetition_penalty=REPETITION_PENALTY,
                pad_token_id=tokenizer.eos_token_id,
            )
        continuation = output[0, inputs["input_ids"].shape[1] :]
        texts.append(str(tokenizer.decode(continuation, skip_special_tokens=True)).strip())
    return texts
