"""Text of others inside Markdown of ours: shown as it is, and never markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from persianmind.common.template import clean

# What starts emphasis, code, links, HTML, entities, table cells or formulas anywhere in a line. CommonMark
# lets any of them stand after a backslash.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~$#&!])")


def escape_markdown(text: str) -> str:
    """One line of plain text, for a paragraph or the cell of a table."""
    return _MARKUP.sub(r"\\\1", " ".join(str(clean(text)).split()))


def fenced(text: str, language: str = "") -> str:
    """A code block of `text`, its fence longer than any run of backticks in it."""
    body = str(clean(re.sub(r"\r\n?", "\n", text)))
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell of `rows` is escaped."""
    lines = [header, ["---"] * len(header), *([escape_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
