"""How much of a text is written in a script."""

from __future__ import annotations

from persianmind.language.script import Script


def script_ratio(text: str, script: Script) -> float | None:
    """The part of a text's letters that are of a script; None for a text without letters."""
    total = sum(map(str.isalpha, text))
    own = sum(map(str.isalpha, script.word_character.findall(text)))
    return own / total if total else None
