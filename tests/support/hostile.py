"""Text as an attacker would put it into a file, and what a terminal must not be sent."""

from __future__ import annotations

import re

TITLE, CLEAR, CSI, OVERRIDE = "\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "\u202egnp"
MARKUP = "[/x] [red]R[/red] [link=file:///etc]"
FORGED_LINE = "\r\npersianmind: error: forged"
HOSTILE = f"a{MARKUP}{TITLE}{CLEAR}{CSI}{OVERRIDE}{FORGED_LINE}"
_ALLOWED = "\n\t\u200c\u200d"
_OUR_STYLE = re.compile(r"\x1b\[[0-9;]*m")  # bold, colours: rich's, on a terminal alone


def steering(text: str, *, on_terminal: bool = False) -> set[str]:
    """Characters of an output that a terminal would obey, or that turn its direction."""
    text = _OUR_STYLE.sub("", text) if on_terminal else text
    return {one for one in text if not one.isprintable() and one not in _ALLOWED}


def is_calm(text: str) -> bool:
    """Whether a hostile text came out as text: nothing steers the terminal, and no line is forged."""
    return not steering(text) and "\npersianmind: error: forged" not in text
