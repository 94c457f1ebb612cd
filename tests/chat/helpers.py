"""Models to talk to: folders of random weights with a chat template, and one that says what it is told to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from persianmind.data.chat_form import ChatForm
from persianmind.evaluate.chat_model import ChatModel
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.model.bases import resolve_base
from persianmind.publish.manifest import write_export_manifest
from persianmind.recipe import Normalise
from persianmind.text.clean import input_normaliser
from persianmind.tokenizer import FolderTokenizer

# Turns end with the tokenizer's own end-of-text token, as in ChatML with that of its own.
TEMPLATE = (
    "<|begin|>{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)

EXPORT = {
    "kind": "hf",
    "recipe": "",
    "step": 0,
    "stage": None,
    "adapter_scale": 1.0,
    "base_fingerprint": "",
    "tokenizer_fingerprint": "",
    "check": None,
}


def model_folder(folder: Path, base: str = "random://llama", **manifest: Any) -> Path:
    """A Hugging Face folder with a chat template; an export of ours where keys of its manifest are given."""
    shutil.copytree(resolve_base(base), folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    if manifest:
        write_export_manifest(folder, **EXPORT | manifest)
    return folder


class ScriptedModel:
    """Stands for a causal LM: answers each dialogue with the next of `answers`, then stops.

    prompts: the token ids it was given, a list for each dialogue. interrupt_after: Ctrl-C comes while it
    computes this token.
    """

    device = torch.device("cpu")

    def __init__(self, tokenizer: FolderTokenizer, answers: Sequence[str], max_positions: int = 512) -> None:
        self.config = SimpleNamespace(max_position_embeddings=max_positions)
        self.prompts: list[list[int]] = []
        self.interrupt_after: int | None = None
        self._vocab = tokenizer.vocab_size
        self._answers = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode(answers)]

    def __call__(self, input_ids: torch.Tensor, past_key_values: Any, **_: Any) -> Any:
        said = 0 if past_key_values is None else past_key_values
        if past_key_values is None:
            self.prompts.append(input_ids[0].tolist())
        if said == self.interrupt_after:
            raise KeyboardInterrupt
        logits = torch.zeros(1, 1, self._vocab)
        logits[0, 0, self._answers[len(self.prompts) - 1][said]] = 100.0
        return SimpleNamespace(logits=logits, past_key_values=said + 1)


def scripted(folder: Path, answers: Sequence[str], **options: Any) -> tuple[ChatModel, ScriptedModel]:
    """A chat model that gives these answers, in the form of a folder, normalising Persian."""
    tokenizer = FolderTokenizer(folder)
    script = ScriptedModel(tokenizer, answers, **options)
    form = ChatForm(TEMPLATE, (tokenizer.eos_id,), tokenizer)
    return ChatModel(script, tokenizer, form, input_normaliser(PERSIAN, Normalise())), script
