"""The tokenizer of an exported folder: the vocabulary's files byte for byte, beside a tokenizer_config.json
with a class that transformers 4 and 5 both know, and the chat template that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from persianmind.common.atomic import write_bytes, write_text
from persianmind.model.config_limits import without_code
from persianmind.tokenizer.models import JSON_FILE, SENTENCEPIECE_FILE

CONFIG_FILE, TEMPLATE_FILE = "tokenizer_config.json", "chat_template.jinja"
COPIED = (JSON_FILE, SENTENCEPIECE_FILE, "special_tokens_map.json", "added_tokens.json", "merges.txt")


def write_tokenizer(vocab: Path, out: Path, *, chat_template: str, max_length: int) -> None:
    """Writes the tokenizer files of `vocab` into `out`.

    Args:
        vocab: the expanded tokenizer of a run.
        out: the exported folder.
        chat_template: Jinja source, in the form that was trained.
        max_length: tokens that the model takes at most.
    """
    for name in COPIED:
        if (vocab / name).is_file():
            write_bytes(out / name, (vocab / name).read_bytes())
    config = tokenizer_config(vocab, chat_template=chat_template, max_length=max_length)
    text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    write_text(out / CONFIG_FILE, text)
    write_text(out / TEMPLATE_FILE, chat_template)


def tokenizer_config(vocab: Path, *, chat_template: str, max_length: int) -> dict[str, Any]:
    """tokenizer_config.json: tokenizer.json is loaded as it is, and nothing is "cleaned up" in decoding."""
    path = vocab / CONFIG_FILE
    stated: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config: dict[str, Any] = without_code(stated)
    # transformers 5 writes a list here, which transformers 4 takes for a mapping and dies of.
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    return config | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        # Else this class of transformers 4 gives token_type_ids too, which `generate` of a Llama refuses.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_length,
        "chat_template": chat_template,
    }
