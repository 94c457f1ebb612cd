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

from persianmind.common.atomic import write_bytes, write_text
from persianmind.model.export.names import DiskNames, disk_names
from persianmind.model.export.source import FolderTensors
from persianmind.model.export.trained import TrainedWeights
from persianmind.model.lora import LAYERS

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
        Bytes of whole tables among the weights; 0 where none is stored whole.

    Raises:
        BaseModelError: the base's files cannot be read.
        OSError: the disk is full or failing.
    """
    from safetensors.torch import save

    files = FolderTensors(base)
    names = disk_names(base, files.shapes())
    whole = _whole_tables(trained, names)
    tensors = _lora_tensors(trained)
    whole_bytes = 0
    for module in sorted({names.embedding} if names.tied else {names.embedding, names.head}):
        found = _whole_table(trained, module, names, files) if module in whole else _new_part(trained, module)
        tensors |= found
        if names.tied and module in whole:  # peft wants a whole tied table twice
            tensors[f"{_PREFIX}{names.head}.weight"] = found[f"{_PREFIX}{module}.weight"].clone()
        whole_bytes += sum(t.nbytes for name, t in found.items() if name.endswith(f"{module}.weight"))
    if names.head in whole and (bias := names.on_disk.get(f"{names.head}.bias")) is not None:
        tensors[f"{_PREFIX}{names.head}.bias"] = _longer_bias(trained, names, files.load(bias))
    config = peft_config(trained, names, base_name=base_name, scale=scale)
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    write_text(out / CONFIG_FILE, text)
    ordered = {name: tensors[name].contiguous() for name in sorted(tensors)}
    # Bytes and not a file: safetensors' own writer leaves a file that only its owner may read.
    write_bytes(out / WEIGHTS_FILE, save(ordered, metadata={"format": "pt"}))
    return whole_bytes


def _whole_tables(trained: TrainedWeights, names: DiskNames) -> set[str]:
    """Modules that are stored whole: those that were trained whole, and a head with a bias, which peft's
    trainable tokens leave out (its issue 3649)."""
    base_VD, new_AD = trained.table(names.embedding)
    has_bias = f"{names.head}.bias" in names.on_disk
    if base_VD is not None or (has_bias and new_AD is not None and names.tied):
        return {names.embedding, names.head}
    return {names.head} if has_bias and new_AD is not None else set()


def peft_config(
    trained: TrainedWeights, names: DiskNames, *, base_name: str | None, scale: float
) -> Mapping[str, Any]:
    """adapter_config.json, completed by peft's own defaults."""
    from peft import LoraConfig

    adapter = trained.adapter
    layers = None if adapter.layers is None else sorted(trained.adapted_layers())
    last_name = {_last(name.removesuffix(".weight")) for name in trained.adapted_weights()}
    tables = [names.embedding] if names.tied else [names.embedding, names.head]
    whole = _whole_tables(trained, names)
    new_AD = trained.table(names.embedding)[1]
    indices = [] if new_AD is None else [trained.base_vocab + i for i in range(len(new_AD))]
    by_token = {_last(one): indices for one in tables if one not in whole and indices}
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha * scale,
        lora_dropout=adapter.dropout,
        target_modules=sorted(last_name),
        layers_to_transform=layers,
        layers_pattern=None if layers is None else LAYERS,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        inference_mode=True,
        modules_to_save=[_last(one) for one in tables if one in whole] or None,
        trainable_token_indices=by_token or None,
        ensure_weight_tying=names.tied and bool(whole),
    )
    tree = config.to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in tree.items()}


def _last(module: str) -> str:
    return module.rsplit(".", 1)[-1]


def _lora_tensors(trained: TrainedWeights) -> dict[str, Tensor]:
    """Factors and magnitudes by peft's names, the adapter's own name left out as peft saves them."""
    return {
        _PREFIX + name.removeprefix("causal_lm.").replace(".default.weight", _suffix(name)): value
        for name, value in trained.tensors.items()
        if ".lora_" in name
    }


def _suffix(name: str) -> str:
    return "" if ".lora_magnitude_vector." in name else ".weight"


def _new_part(trained: TrainedWeights, module: str) -> dict[str, Tensor]:
    """The new embeddings of a table alone, nothing where there are none."""
    new_AD = trained.table(module)[1]
    return {} if new_AD is None else {f"{_PREFIX}{module}.token_adapter.trainable_tokens_delta": new_AD}


def _whole_table(
    trained: TrainedWeights, module: str, names: DiskNames, files: FolderTensors
) -> dict[str, Tensor]:
    """All embeddings of a table: the base's, as trained or as they lie in its files, and new ones."""
    import torch

    base_VD, new_AD = trained.table(module)
    if base_VD is None:
        base_VD = files.load(names.on_disk[f"{module}.weight"])[: trained.base_vocab]
    return {f"{_PREFIX}{module}.weight": torch.cat([base_VD] if new_AD is None else [base_VD, new_AD])}


def _longer_bias(trained: TrainedWeights, names: DiskNames, base_bias_V: Tensor) -> Tensor:
    """Of the base's tokens and of the new ones, as training has it."""
    import torch

    from persianmind.model.tables import new_bias

    base_bias_V, new_AD = base_bias_V[: trained.base_vocab], trained.table(names.embedding)[1]
    added = 0 if new_AD is None else len(new_AD)
    return torch.cat([base_bias_V, new_bias(base_bias_V).expand(added)])
