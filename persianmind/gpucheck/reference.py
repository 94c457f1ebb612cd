"""Loss and gradients of a micro-batch by plain transformers and peft: each document by itself through an
ordinary model with eager attention and whole vocabulary tables. Nothing of ours computes here."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from persianmind.engine.base import Batch
from persianmind.model.adapted import DTYPES, AdaptedModel, keep_4bit_layout
from persianmind.recipe import Recipe

Gradients = Mapping[str, Tensor]


def plain_model(base: Path, ours: AdaptedModel, recipe: Recipe, device: torch.device) -> Any:
    """The base as transformers loads it, with tables and adapters of the values that `ours` has; where our
    base is int8, unrounded."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = DTYPES[recipe.train.precision]
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "eager"}
    if device.type != "cpu":
        options["device_map"] = {"": device}
    if recipe.train.quantize == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    plain: Any = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True, **options)
    if recipe.train.quantize == "nf4":
        keep_4bit_layout(plain)
    adapter = recipe.adapter
    names = {name.rsplit(".", 1)[-1] for name, _ in ours.named_modules() if name.endswith("_proj")}
    layers = None if adapter.layers is None else list(adapter.layer_indices(ours.layer_count))
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=sorted(names),
        layers_to_transform=layers,
        bias="none",
    )
    inject_adapter_in_model(config, plain)
    input_VD, head_VD = ours.input_table.folded(), ours.output_table.folded()
    embedding = nn.Embedding(input_VD.shape[0], input_VD.shape[1], device="meta")
    embedding.weight = nn.Parameter(input_VD)
    plain.set_input_embeddings(embedding)
    head = nn.Linear(head_VD.shape[1], head_VD.shape[0], bias=False, device="meta")
    head.weight = nn.Parameter(head_VD)
    plain.set_output_embeddings(head)
    values = {name.removeprefix("causal_lm."): value for name, value in ours.trained().items()}
    for name, value in plain.named_parameters():
        if "lora_" in name:
            value.data = values[name].detach().clone()
            value.requires_grad_(True)
    return plain if recipe.train.quantize == "nf4" else plain.to(device)


def plain_gradients(
    plain: Any, ours: AdaptedModel, batch: Batch, device: torch.device
) -> tuple[float, Gradients]:
    """(summed loss in nats, its gradients under the names that `ours` has for them)."""
    plain.zero_grad(set_to_none=True)
    total = 0.0
    for ids, labels in _documents(batch):
        logits = plain(input_ids=torch.from_numpy(ids)[None].to(device), use_cache=False).logits[0]
        loss = functional.cross_entropy(logits.float(), torch.from_numpy(labels).to(device), reduction="sum")
        if (labels >= 0).any():
            torch.autograd.backward(loss)
            total += float(loss.detach())
    gradients = {
        f"causal_lm.{name}": value.grad for name, value in plain.named_parameters() if "lora_" in name
    }
    base_vocab = ours.input_table.base_vocab
    for name in ours.trained():
        if "lora_" not in name:
            table = plain.get_input_embeddings() if "embed" in name else plain.get_output_embeddings()
            gradients[name] = table.weight.grad[base_vocab:]
    return total, gradients


def _documents(batch: Batch) -> list[tuple[Any, Any]]:
    """(ids, labels) of each document."""
    found = []
    for sequence, positions in enumerate(batch["position_ids"]):
        edges = [*np.flatnonzero(positions == 0).tolist(), len(positions)]
        for start, stop in pairwise(edges):
            found.append((batch["input_ids"][sequence, start:stop], batch["labels"][sequence, start:stop]))
    return found


def relative_errors(got: Gradients, expected: Gradients) -> dict[str, float]:
    """The relative L2 error over each parameter group (engine/groups.py)."""
    from persianmind.engine.groups import group_of

    difference_sq: dict[str, float] = {}
    expected_sq: dict[str, float] = {}
    for name, value in expected.items():
        group = group_of(name)
        off = (got[name].float() - value.float()).double()
        difference_sq[group] = difference_sq.get(group, 0.0) + float(off.pow(2).sum())
        expected_sq[group] = expected_sq.get(group, 0.0) + float(value.double().pow(2).sum())
    return {group: (total / max(expected_sq[group], 1e-60)) ** 0.5 for group, total in difference_sq.items()}
