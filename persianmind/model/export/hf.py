"""The merged, ordinary Hugging Face folder: tables folded, adapters added to a fresh copy of the base.

The deltas are added in fp32 to the base as it lies on disk, never to a quantised module, and cast once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persianmind.common.atomic import atomic_dir
from persianmind.model.adapted import AdaptedModel

EXPORT_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def export_merged(
    model: AdaptedModel,
    base: Path,
    tokenizer_dir: Path,
    out: Path,
    *,
    dtype: str = "bfloat16",
    pad_vocab_to_multiple: int = 1,
) -> Path:
    """Writes `out` (whole, by rename): config, safetensors, tokenizer; `transformers` alone loads it.

    Padding is the mean of the table, so that none of them is ever the likeliest: an average direction
    loses to some real token wherever the model prefers any.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tables = [
        padded(table.folded().cpu(), pad_vocab_to_multiple)
        for table in (model.input_table, model.output_table)
    ]
    deltas = adapter_deltas(model)
    merged = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    _replace_tables(merged, tables)
    _add_deltas(merged, deltas)
    merged.to(EXPORT_DTYPES[dtype])
    merged.config.dtype = EXPORT_DTYPES[dtype]
    with atomic_dir(out) as temporary:
        merged.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(temporary)
    return out


def padded(table_VD: Tensor, multiple: int) -> Tensor:
    """The table [V, D] with its mean appended up to the next `multiple`."""
    missing = -table_VD.shape[0] % multiple
    if not missing:
        return table_VD
    mean_1D = table_VD.float().mean(dim=0, keepdim=True).to(table_VD.dtype)
    return torch.cat([table_VD, mean_1D.expand(missing, -1)])


def adapter_deltas(model: AdaptedModel) -> dict[str, tuple[Tensor, Tensor | None]]:
    """`weight name -> (fp32 delta, DoRA magnitude or None)` of every LoRA layer, named as in the base."""
    from peft.tuners.lora import LoraLayer

    deltas: dict[str, tuple[Tensor, Tensor | None]] = {}
    for name, module in model.causal_lm.named_modules():
        if isinstance(module, LoraLayer):
            for adapter in module.active_adapters:
                factor_A = module.lora_A[adapter].weight.detach().float()
                factor_B = module.lora_B[adapter].weight.detach().float()
                magnitude = None
                if module.use_dora[adapter]:
                    magnitude = module.lora_magnitude_vector[adapter].weight.detach().float()
                delta = (factor_B @ factor_A) * module.scaling[adapter]
                deltas[f"{name}.weight"] = (delta.cpu(), None if magnitude is None else magnitude.cpu())
    return deltas


@torch.no_grad()
def _add_deltas(merged: torch.nn.Module, deltas: Mapping[str, tuple[Tensor, Tensor | None]]) -> None:
    """W + delta, or for DoRA (arXiv 2402.09353, eq. 5) magnitude * (W + delta) / row norm of it."""
    parameters = dict(merged.named_parameters())
    for name, (delta, magnitude) in deltas.items():
        parameters[name].add_(delta)
        if magnitude is not None:
            norm = parameters[name].norm(dim=1)
            parameters[name].mul_((magnitude / norm).unsqueeze(1))


def _replace_tables(merged: Any, tables: list[Tensor]) -> None:
    """Puts the folded tables in place; a tied model keeps one table for both."""
    vocab, width = tables[0].shape
    tied = bool(merged.config.tie_word_embeddings)
    embedding = torch.nn.Embedding(vocab, width, _weight=tables[0].float())
    merged.set_input_embeddings(embedding)
    if tied:
        merged.get_output_embeddings().weight = embedding.weight
    else:
        head = torch.nn.Linear(width, vocab, bias=False)
        head.weight = torch.nn.Parameter(tables[1].float())
        merged.set_output_embeddings(head)
    merged.config.vocab_size = vocab
