"""How an exported folder is used, in code that runs as it stands."""

from __future__ import annotations

from pathlib import Path

from persianmind.publish.markdown import fenced

_LOAD = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

name = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
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


def usage(export: Path, prompt: str) -> list[str]:
    """The code, and the prompt as the folder's own chat template renders it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(export, local_files_only=True)
    if not tokenizer.chat_template:
        code = _LOAD + _CONTINUE.format(prompt=prompt) + _GENERATE
        return [fenced(code, "python"), "It has no chat template: it continues text."]
    messages = [{"role": "user", "content": prompt}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    code = _LOAD + _CHAT.format(prompt=prompt) + _GENERATE
    said = "The chat template writes the prompt as in training; this one reads"
    return [fenced(code, "python"), said, fenced(str(rendered))]
