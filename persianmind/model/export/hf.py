"""The merged, ordinary Hugging Face folder, written a weight at a time from base and trained weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.atomic import write_text
from persianmind.data.chat_form import ChatForm
from persianmind.model.export.config import SpecialIds, export_config, generation_config
from persianmind.model.export.merged import MergedTensors
from persianmind.model.export.tokenizer_files import write_tokenizer
from persianmind.model.export.trained import TrainedWeights
from persianmind.model.export.writer import MAX_SHARD_BYTES, write_weights
from persianmind.tokenizer import FolderTokenizer


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How a model is written. adapter_scale: factor on every adapter's delta."""

    dtype: str = "bfloat16"
    pad_vocab_to_multiple: int = 1
    adapter_scale: float = 1.0
    max_shard_bytes: int = MAX_SHARD_BYTES


def write_merged(
    out: Path,
    base: Path,
    trained: TrainedWeights,
    vocab: Path,
    form: ChatForm,
    settings: ExportSettings = ExportSettings(),
) -> None:
    """Writes config, safetensors and tokenizer into the folder `out`; `transformers` alone loads it.

    Raises:
        BaseModelError: the base's files cannot be read, or hold a trained weight in another form.
        OSError: the disk is full or failing.
    """
    tensors = merged_tensors(base, trained, settings)
    write_without_weights(out, base, vocab, form, vocab_size=tensors.vocab_size, dtype=settings.dtype)
    write_weights(out, tensors, tensors.dtype, settings.max_shard_bytes)


def merged_tensors(base: Path, trained: TrainedWeights, settings: ExportSettings) -> MergedTensors:
    """The weights of the export, to be loaded one by one.

    Raises:
        BaseModelError: as `write_merged`.
    """
    import torch

    return MergedTensors(
        base,
        trained,
        dtype=getattr(torch, settings.dtype),
        pad_vocab_to_multiple=settings.pad_vocab_to_multiple,
        adapter_scale=settings.adapter_scale,
    )


def write_without_weights(
    out: Path, base: Path, vocab: Path, form: ChatForm, *, vocab_size: int, dtype: str
) -> None:
    """Everything of an exported folder but its weights: configs, tokenizer, chat template."""
    ids = special_ids(vocab, base, form)
    config = export_config(base, vocab_size=vocab_size, dtype=dtype, ids=ids)
    _write_json(out / "config.json", config)
    _write_json(out / "generation_config.json", generation_config(ids))
    max_length = int(config.get("max_position_embeddings") or 2048)
    write_tokenizer(vocab, out, chat_template=form.template, max_length=max_length)


def special_ids(vocab: Path, base: Path, form: ChatForm) -> SpecialIds:
    """Ids by the tokenizer that training used; generation also stops at what ended the base's own texts."""
    tokenizer = FolderTokenizer(vocab)
    stop = [tokenizer.eos_id, *form.end_of_turn_ids, *_stated_eos(base)]
    return SpecialIds(
        bos=tokenizer.named_id("bos_token"),
        eos=tokenizer.eos_id,
        pad=tokenizer.named_id("pad_token"),
        stop=list(dict.fromkeys(stop)),
    )


def _stated_eos(base: Path) -> list[int]:
    """Ids at which the base itself stops, by its generation_config.json or else its config.json."""
    for name in ("generation_config.json", "config.json"):
        path = base / name
        stated = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        if stated is not None:
            return [int(one) for one in (stated if isinstance(stated, list) else [stated])]
    return []


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
