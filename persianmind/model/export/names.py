"""The names that a model's parameters have in the files of its base folder.

transformers renames on loading (a mixture's experts, prefixes of older checkpoints); an export keeps the
names of the files, so that every tool that reads the base reads the export.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class DiskNames:
    """Parameter names of the transformers model, against names in the files.

    on_disk: parameter -> name in the files, for those that lie there as they are.
    embedding, head: modules of the two tables ("model.embed_tokens", "lm_head").
    tied: whether the head is the embeddings.
    """

    on_disk: dict[str, str]
    embedding: str
    head: str
    tied: bool


def disk_names(base: Path, names_in_files: Iterable[str]) -> DiskNames:
    """Builds the base on the meta device and asks transformers what it makes of each name."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    state = model.state_dict()
    found: dict[str, str] = {}
    for name in names_in_files:
        renamed, converter = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if converter is None:
            found[renamed] = name
    return DiskNames(
        found,
        _module_name(model, model.get_input_embeddings()),
        _module_name(model, model.get_output_embeddings()),
        bool(model.config.get_text_config().tie_word_embeddings),
    )


def _module_name(model: Any, module: Any) -> str:
    names: list[str] = [name for name, one in model.named_modules() if one is module]
    return names[0]
