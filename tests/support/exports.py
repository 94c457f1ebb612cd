"""An exported folder made by hand, as every tool should load it: the random base with a chat template, and
configuration that transformers 4 and 5 both understand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from persianmind.model.bases import resolve_base

CHAT_TEMPLATE = (
    "{{ bos_token + 'A conversation.' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '\\nYou: ' + message['content'] + '\\nPersianMind:' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)


def hand_made_export(folder: Path, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """Writes it; returns `folder`."""
    folder.mkdir(parents=True)
    base = resolve_base("random://llama")
    for name in ("model.safetensors", "tokenizer.json", "generation_config.json"):
        shutil.copy(base / name, folder)
    config = _json(base / "config.json")
    config |= {"rope_theta": config["rope_parameters"]["rope_theta"], "torch_dtype": config["dtype"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        tokenizer["chat_template"] = chat_template
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
