"""The merged, ordinary Hugging Face folder: tables folded, adapters added to a fresh copy of the base.

The deltas are added in fp32 to the base as it lies on disk, never to a quantised module, and cast once; one
weight at a time, on the host, so that it holds one model in the export's dtype and little more.
"""

from __future__ import annotations

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
    merged = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True)
    _replace_tables(merged, tables)
    _merge_adapters(merged, model, EXPORT_DTYPES[dtype])
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


@torch.no_grad()
def _merge_adapters(merged: torch.nn.Module, model: AdaptedModel, dtype: torch.dtype) -> None:
    """Casts every weight; where it has an adapter W + delta, or for DoRA (arXiv 2402.09353, eq. 5)
    magnitude * (W + delta) / row norm of it."""
    layers = lora_layers(model)
    for name, parameter in merged.named_parameters():
        value = parameter.data
        if (layer := layers.get(name)) is not None:
            delta, magnitude = adapter_delta(layer)
            value = value.float() + delta
            if magnitude is not None:
                value *= (magnitude / value.norm(dim=1)).unsqueeze(1)
        parameter.data = value.to(dtype)


def lora_layers(model: AdaptedModel) -> dict[str, Any]:
    """`weight name -> LoRA layer`, named as in the base."""
    from peft.tuners.lora import LoraLayer

    return {
        f"{name}.weight": module
        for name, module in model.causal_lm.named_modules()
        if isinstance(module, LoraLayer)
    }


def adapter_delta(layer: Any) -> tuple[Tensor, Tensor | None]:
    """(fp32 delta [out, in] of all active adapters, DoRA magnitude [out] or None), on the host."""
    delta, magnitude = None, None
    for adapter in layer.active_adapters:
        factor_A = layer.lora_A[adapter].weight.detach().float().cpu()
        factor_B = layer.lora_B[adapter].weight.detach().float().cpu()
        one = (factor_B @ factor_A) * layer.scaling[adapter]
        delta = one if delta is None else delta + one
        if layer.use_dora[adapter]:
            magnitude = layer.lora_magnitude_vector[adapter].weight.detach().float().cpu()
    assert delta is not None
    return delta, magnitude


def _replace_tables(merged: Any, tables: list[Tensor]) -> None:
    """Puts the folded tables in place; a tied model keeps one table for both."""
    vocab, width = tables[0].shape
    tied = bool(merged.config.tie_word_embeddings)
    embedding = torch.nn.Embedding(vocab, width, _weight=tables[0])
    merged.set_input_embeddings(embedding)
    if tied:
        merged.get_output_embeddings().weight = embedding.weight
    else:
        head = torch.nn.Linear(width, vocab, bias=False)
        head.weight = torch.nn.Parameter(tables[1])
        merged.set_output_embeddings(head)
    merged.config.vocab_size = vocab
