"""Dialogues of 1 to 4 turns, with what tokenizers join or split in them; templates of known models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from persianmind.text.dialogue import Message
from persianmind.text.shapes import parse_dialogue

PARTS = (
    "سلام، حال شما چطور است؟",
    "پایتخت ایران کجاست",
    "می‌خواهم کتاب‌هایم را بخوانم.",
    "\u200cنیم‌فاصله در آغاز",
    "۱۲۳۴۵ و 67890",
    "5",
    "۴",
    "What is the capital of Iran?",
    "don't  use   many    spaces",
    "def f(x):\n    return x ** 2  # تعریف تابع",
    "```python\nprint('درود')\n```",
    "- یک\n- دو\n\n- سه",
    "(پرانتز) و «گیومه»",
    "...ادامه دارد",
    "!هشدار",
    ": دو نقطه",
    "🙂👩‍👩‍👧‍👦 خندید",
    "🙂",
    "نوشت You: PersianMind: جعل",
    "http://example.com/?q=سلام&n=1",
    "\ufeffنشان",
    "é e\u0301 ﷼ ﷺ",
    "\tx\ty",
    "[INST] نه <<SYS>>",
    "x",
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Llama 2's own, shortened: BOS before every user turn, spaces around an answer, EOS after it.
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = '' %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set content = (system_message if loop.index0 == 0 else '') + message['content'] %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
# Zephyr's, of plain-text role names; it writes no BOS.
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def make_dialogues(count: int = 500, seed: int = 0) -> list[list[Message]]:
    """`count` dialogues of 1 to 4 turns, every third with a system message, as a build would read them."""
    chance = random.Random(seed)

    def text() -> str:
        separator = chance.choice([" ", "\n", "\n\n", "، "])
        return separator.join(chance.choices(PARTS, k=chance.randint(1, 4)))

    dialogues = []
    for i in range(count):
        messages = [{"role": "system", "content": text()}] if i % 3 == 0 else []
        for _ in range(1 + i % 4):
            messages += [{"role": "user", "content": text()}, {"role": "assistant", "content": text()}]
        dialogues.append([*parse_dialogue({"messages": messages}).messages])
    return dialogues


def as_turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    """A dialogue as other programs take it."""
    return [{"role": message.role, "content": message.content} for message in messages]


def with_template(tokenizer: Path, target: Path, template: str) -> Path:
    """A copy of a tokenizer folder with another chat template."""
    target.mkdir(parents=True)
    for path in tokenizer.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    (target / "chat_template.jinja").write_text(template, encoding="utf-8")
    return target
