"""Exported folders as the project writes them, over tiny random models: what the GGUF tests start from."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from persianmind.data.chat_form import ChatForm
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.language.persian import normalise
from persianmind.text.sources.package import read_package
from persianmind.tokenizer import FolderTokenizer
from persianmind.tokenizer.folder import TOKENIZER_FILES
from tests.support.corpus import TEXT_NAMES, sample_documents

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_export(
    folder: Path,
    tokenizer: Path,
    *,
    kind: str = "llama",
    template: str | None = None,
    padding: int = 0,
    generation: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A two-layer random model with the tokenizer of a folder, saved as an ordinary Hugging Face folder.

    Its weights are large, so that its logits differ: a model of the usual small random weights gives nearly
    the same probability to every token, whatever is computed.
    """
    reader = FolderTokenizer(tokenizer)
    torch.manual_seed(5)
    sizes = {
        "vocab_size": reader.vocab_size + padding,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
        "bos_token_id": reader.bos_or_eos_id,
        "eos_token_id": reader.eos_id,
        "pad_token_id": reader.pad_id,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **settings}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith(".bias"):
                weight += 0.3 * torch.randn_like(weight)
    model.generation_config = GenerationConfig(**{"eos_token_id": reader.eos_id, **(generation or {})})
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    text = ChatForm.of(reader, "persianmind", PERSIAN.prompt).template if template is None else template
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    return folder


def change_config(folder: Path, name: str = "config.json", **values: Any) -> Path:
    """Sets keys of a JSON file of a folder."""
    path = folder / name
    tree = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**tree, **values}), encoding="utf-8")
    return folder


ODD_TEXTS = (
    "",
    " ",
    "\n\n \t\r\n  x",
    "می‌خواهم کتاب‌هایم را بخوانم.\nسلام  دنیا\n\n",
    "قیمت ۱۲۳۴ تومان است، 5678 دلار، ٠١٢٣.",
    "def f(x):\n    return x ** 2  # تعریف تابع\n\n\n    y = {'a': [1, 2]}\n",
    "https://example.com/?q=سلام&n=1  a@b.ir",
    "🙂👩‍👩‍👧‍👦 🦙🦙 🧑‍💻 ﷲ ﷺ ﷼ ٪۵۰ … – —",
    "I'm, you're, WE'LL don't 'tis the year 2024! 3.14159 1,000,000",
    "a" * 200 + " " * 40 + "ه" * 60 + "\n" * 9,
    "«گیومه»؛ پرسش؟ بِسْمِ اللَّهِ الرَّحْمَٰنِ الرَّحِيمِ",
    "Übermäßig naïve café, 日本語 中文 한국어 हिन्दी עברית",
)


@cache
def mixed_texts(count: int = 520) -> tuple[str, ...]:
    """Texts in both languages, some cut within a word: poems, prose, messages, English, code."""
    sources: list[list[str]] = [sample_documents(name) for name in TEXT_NAMES]
    for name in ("hafez", "gettext-fa", "python-topics"):
        sources.append([str(record.fields["text"]) for record in read_package(name, name)])
    texts = list(ODD_TEXTS)
    index = 0
    while len(texts) < count:
        for source in sources:
            text = source[index % len(source)]
            texts.append(normalise(text)[index % 7 : 700])
        index += 1
    return tuple(texts)


@cache
def dialogues(count: int = 500) -> tuple[tuple[dict[str, str], ...], ...]:
    """Dialogues of one to four user turns, the last one to be answered; some with a system turn, some with
    white space around a turn."""
    texts = [" ".join(text.split())[:80].strip() for text in mixed_texts(700)]
    words = [text for text in texts if text]
    made = []
    for i in range(count):
        turns: list[dict[str, str]] = []
        if i % 3 == 0:
            turns.append({"role": "system", "content": words[i % len(words)]})
        for turn in range(1 + i % 4):
            margin = ("", " ", "\n")[i % 7 % 3]
            turns.append(
                {"role": "user", "content": margin + words[(7 * i + 2 * turn) % len(words)] + margin}
            )
            turns.append({"role": "assistant", "content": words[(7 * i + 2 * turn + 1) % len(words)]})
        made.append(tuple(turns[:-1]))
    return tuple(made)
