"""Parallel text: a pair in two languages is two translation tasks, one each way.

Each is asked in one of several wordings, in one of the two languages; which, follows from the text alone, so
that every pass and every machine asks the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from persianmind.recipe import Source
from persianmind.text.dialogue import BadDialogueError, Message, ParsedDialogue
from persianmind.text.record import Fields

PARTS = 2  # records made of one pair
NESTED = "translation"  # as the hub's data sets of pairs have it

# By the language in which is asked. {source} and {target} stand for the names of the two languages in it.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "fa": (
        "متن زیر را از {source} به {target} ترجمه کن:",
        "این متن را به {target} برگردان:",
        "ترجمهٔ {target} این متن چیست؟",
        "به {target} ترجمه کن:",
    ),
    "en": (
        "Translate the following text from {source} into {target}:",
        "Translate this text into {target}:",
        "What is this in {target}?",
        "Give the {target} translation of:",
    ),
}
NAMES: dict[str, dict[str, str]] = {
    "fa": {
        "ar": "عربی", "az": "ترکی آذربایجانی", "ckb": "کردی سورانی", "de": "آلمانی", "en": "انگلیسی",
        "es": "اسپانیایی", "fa": "فارسی", "fr": "فرانسوی", "hi": "هندی", "it": "ایتالیایی", "ja": "ژاپنی",
        "ku": "کردی", "ps": "پشتو", "ru": "روسی", "tg": "تاجیکی", "tr": "ترکی", "ur": "اردو", "zh": "چینی",
    },
    "en": {
        "ar": "Arabic", "az": "Azerbaijani", "ckb": "Central Kurdish", "de": "German", "en": "English",
        "es": "Spanish", "fa": "Persian", "fr": "French", "hi": "Hindi", "it": "Italian", "ja": "Japanese",
        "ku": "Kurdish", "ps": "Pashto", "ru": "Russian", "tg": "Tajik", "tr": "Turkish", "ur": "Urdu",
        "zh": "Chinese",
    },
}  # fmt: skip


def pair_texts(fields: Fields, source: Source) -> tuple[str, ...]:
    """The two texts of a pair, in the order of `languages`.

    Raises:
        BadDialogueError: one is missing, or is no text.
    """
    nested = fields.get(NESTED)
    held: Mapping[str, Any] = nested if isinstance(nested, Mapping) else fields
    texts = []
    for field in source.languages.values():
        if field not in held:
            raise BadDialogueError("missing_field")
        text = held[field]
        if text is None:
            raise BadDialogueError("null_text")
        if not isinstance(text, str):
            raise BadDialogueError("wrong_type")
        if not text.strip():
            raise BadDialogueError("empty_text")
        texts.append(text.strip())
    return tuple(texts)


def translation_task(texts: Sequence[str], source: Source, part: int) -> ParsedDialogue:
    """The pair as a task: part 0 from the first of `languages` into the second, part 1 back.

    texts: of `pair_texts`, in any spelling.
    """
    codes = list(source.languages)
    asked, answer = (0, 1) if part == 0 else (1, 0)
    wordings = [(code, one) for code in codes for one in source.templates.get(code, TEMPLATES.get(code, ()))]
    wordings = wordings or [("en", one) for one in TEMPLATES["en"]]
    digest = xxhash.xxh3_64_intdigest("\0".join(texts).encode("utf-8", "surrogatepass"), seed=part)
    language, wording = wordings[digest % len(wordings)]
    names = NAMES.get(language, {})
    question = wording.replace("{source}", names.get(codes[asked], codes[asked]))
    question = question.replace("{target}", names.get(codes[answer], codes[answer]))
    turns = (Message("user", f"{question}\n{texts[asked]}"), Message("assistant", texts[answer]))
    return ParsedDialogue(turns)
