"""How an exported folder is used, in code that runs as it stands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from persianmind.publish.markdown import fenced

_MERGED = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

name = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
"""
_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

name = "."  # this folder, or its name on the Hub
base = {base!r}
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
model = PeftModel.from_pretrained(model, name)
"""
_CHAT = """\
messages = [{{"role": "user", "content": {prompt!r}}}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
"""
_CONTINUE = """\
inputs = tokenizer({prompt!r}, return_tensors="pt")
"""
_GENERATE = """\
output = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def gguf_file(export: Path) -> str | None:
    """The name of the GGUF in an exported folder, None in one of another format."""
    return next((path.name for path in sorted(export.glob("*.gguf"))), None)


def is_adapter(export: Path) -> bool:
    """Whether an exported folder holds an adapter, to be put on its base."""
    return (export / "adapter_config.json").is_file()


def usage(export: Path, prompt: str, base: str | None) -> list[str]:
    """The code for the folder's format, and the prompt as its own chat template renders it.

    Args:
        export: the folder.
        prompt: what the example asks.
        base: the base's name on the Hub, None where it is unknown.
    """
    if (file := gguf_file(export)) is not None:
        return _server(file, prompt)
    load = _ADAPTER.format(base=base or "path/of/the/base") if is_adapter(export) else _MERGED
    rendered = _rendered(export, prompt)
    if rendered is None:
        code = load + _CONTINUE.format(prompt=prompt) + _GENERATE
        return [fenced(code, "python"), "It has no chat template: it continues text."]
    code = load + _CHAT.format(prompt=prompt) + _GENERATE
    said = "The chat template writes the prompt as in training; this one reads"
    return [fenced(code, "python"), said, fenced(rendered)]


def _rendered(export: Path, prompt: str) -> str | None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(export, local_files_only=True)
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _server(file: str, prompt: str) -> list[str]:
    body = json.dumps({"messages": [{"role": "user", "content": prompt}]}, ensure_ascii=False)
    commands = (
        f"llama-server -m {shlex.quote(file)} --jinja &\n"
        "curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )
    said = "The chat template is in the file: the chat endpoint writes the prompt as in training."
    return [fenced(commands, "sh"), said]
