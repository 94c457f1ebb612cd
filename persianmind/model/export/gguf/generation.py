"""How an exported folder is prompted and where it stops: chat template, special ids, repetition penalty."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.errors import BaseModelError
from persianmind.tokenizer import FolderTokenizer


@dataclass(frozen=True)
class FolderGeneration:
    """template: the chat template's Jinja source. ends: the tokens that end an answer, that of the tokenizer
    first. repetition_penalty: None where generation_config.json names none."""

    tokenizer: FolderTokenizer
    template: str
    ends: Sequence[int]
    repetition_penalty: float | None

    def add_to(self, writer: Any) -> None:
        """Writes it into a GGUFWriter."""
        tokenizer = self.tokenizer
        writer.add_bos_token_id(tokenizer.bos_or_eos_id)
        writer.add_add_bos_token(tokenizer.bos_id is not None)
        writer.add_eos_token_id(tokenizer.eos_id)
        writer.add_add_eos_token(False)
        writer.add_pad_token_id(tokenizer.pad_id)
        for token_id, add in zip(
            self.ends[1:], (writer.add_eot_token_id, writer.add_eom_token_id), strict=False
        ):
            add(token_id)
        writer.add_chat_template(self.template)
        if self.repetition_penalty is not None:
            writer.add_sampling_penalty_repeat(self.repetition_penalty)
            writer.add_sampling_penalty_last_n(-1)  # transformers counts every token of the context


def read_generation(folder: Path) -> FolderGeneration:
    """Reads generation_config.json, the chat template and the special tokens of a folder.

    Raises:
        BaseModelError: no chat template, or more tokens that end a turn than a GGUF has keys for.
    """
    stated = _read_json(folder / "generation_config.json")
    ends = stated.get("eos_token_id")
    tokenizer = FolderTokenizer(folder)
    every = list(dict.fromkeys([tokenizer.eos_id, *([ends] if isinstance(ends, int) else ends or [])]))
    if len(every) > 3:
        raise BaseModelError(
            f"{folder}: {len(every)} tokens end a turn by generation_config.json, a GGUF holds three; keep "
            "those that the model was trained on"
        )
    penalty = stated.get("repetition_penalty")
    return FolderGeneration(
        tokenizer, _template(tokenizer), every, None if penalty is None else float(penalty)
    )


def _template(tokenizer: FolderTokenizer) -> str:
    """Without one llama.cpp would put ChatML in its place."""
    template = tokenizer.chat_template()
    if template is None:
        raise BaseModelError(
            f"{tokenizer.folder} has no chat template, and llama.cpp would use ChatML; export it again"
        )
    return template


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value
