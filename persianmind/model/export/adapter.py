"""A PEFT folder: LoRA factors and new embeddings, for sharing and for further training over the same base.

New embeddings are `trainable_token_indices` of both tables: plain peft puts them into a base whose tables
were resized (`model.resize_token_embeddings(len(tokenizer))`). `modules_to_save` would hold both tables
whole; only `train_embeddings: all`, which trained them whole, needs that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.model.export.names import DiskNames, disk_names
from persianmind.model.export.source import FolderTensors
from persianmind.model.export.trained import TrainedWeights

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"


def write_adapter(
    out: Path, base: Path, trained: TrainedWeights, *, base_name: str | None, scale: float = 1.0
) -> int:
    """Writes adapter_config.json and adapter_model.safetensors into the folder `out`.

    Args:
        out: an existing folder.
        base: the folder of the base.
        trained: what was trained over it.
        base_name: the base as others can find it, for peft's `base_model_name_or_path`.
        scale: factor on every adapter's delta.

    Returns:
        Bytes of whole tables among the weights; 0 where only new embeddings were trained.

    Raises:
        BaseModelError: the base's files cannot be read.
        OSError: the disk is full or failing.
    """
    from safetensors.torch import save

    names = disk_names(base, FolderTensors(base).shapes())
    tables = {names.embedding} if names.tied else {names.embedding, names.head}
    tensors = _lora_tensors(trained)
    whole_bytes = 0
    for module in sorted(tables):
        found = _table_tensors(trained, module)
        tensors |= found
        if names.tied and f"{_PREFIX}{module}.weight" in found:  # peft wants a whole tied table twice
            tensors[f"{_PREFIX}{names.head}.weight"] = found[f"{_PREFIX}{module}.weight"].clone()
        whole_bytes += sum(t.nbytes for name, t in found.items() if name.endswith(f"{module}.weight"))
    config = peft_config(trained, names, base_name=base_name, scale=scale)
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    (out / CONFIG_FILE).write_text(text, encoding="utf-8")
    ordered = {name: tensors[name].contiguous() for name in sorted(tensors)}
    # Bytes and not a file: safetensors' own writer leaves a file that only its owner may read.
    (out / WEIGHTS_FILE).write_bytes(save(ordered, metadata={"format": "pt"}))
    return whole_bytes


def peft_config(
    trained: TrainedWeights, names: DiskNames, *, base_name: str | None, scale: float
) -> Mapping[str, Any]:
    """adapter_config.json, completed by peft's own defaults."""
    from peft import LoraConfig

    adapter = trained.adapter
    last_name = {name.removesuffix(".weight").rsplit(".", 1)[-1] for name in trained.adapted_weights()}
    tables = [names.embedding] if names.tied else [names.embedding, names.head]
    modules = [one.rsplit(".", 1)[-1] for one in tables]
    whole, new = trained.table(names.embedding)
    indices = None if new is None else list(range(trained.base_vocab, trained.base_vocab + len(new)))
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha * scale,
        lora_dropout=adapter.dropout,
        target_modules=sorted(last_name),
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        inference_mode=True,
        modules_to_save=modules if whole is not None else None,
        trainable_token_indices=(
            dict.fromkeys(modules, indices) if indices is not None and whole is None else None
        ),
        ensure_weight_tying=names.tied and whole is not None,
    )
    tree = config.to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in tree.items()}


def _lora_tensors(trained: TrainedWeights) -> dict[str, Tensor]:
    """Factors and magnitudes by peft's names, the adapter's own name left out as peft saves them."""
    return {
        _PREFIX + name.removeprefix("causal_lm.").replace(".default.weight", _suffix(name)): value
        for name, value in trained.tensors.items()
        if ".lora_" in name
    }


def _suffix(name: str) -> str:
    return "" if ".lora_magnitude_vector." in name else ".weight"


def _table_tensors(trained: TrainedWeights, module: str) -> dict[str, Tensor]:
    import torch

    base_VD, new_AD = trained.table(module)
    if base_VD is not None:
        parts = [base_VD] if new_AD is None else [base_VD, new_AD]
        return {f"{_PREFIX}{module}.weight": torch.cat(parts)}
    if new_AD is None:
        return {}
    return {f"{_PREFIX}{module}.token_adapter.trainable_tokens_delta": new_AD}
