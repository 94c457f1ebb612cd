"""docs/troubleshooting.md says what this code says: every quoted message occurs in the source, every page
it sends people to has the heading, and every exit code is one of ours."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from persianmind.common import errors
from tests.support.launch import ROOT

PAGES = {
    ROOT / "docs" / "troubleshooting.md": 90,  # symptoms at least
    ROOT / "docs" / "fa" / "troubleshooting.md": 45,
}
HEADINGS = ("what you see", "چه می‌بینید", "---")
ROW = re.compile(r"^\| (.+?) \| (.+) \| (.+) \|$", flags=re.MULTILINE)
VALUE = "\x00"  # stands in the source's text where a value is put in
LINK = re.compile(r"\]\(([^)#]+)#([^)]+)\)")


def symptoms(text: str) -> list[str]:
    """The first column, without the headings."""
    return [seen for seen, _, _ in ROW.findall(text.replace("\\|", "/")) if seen not in HEADINGS]


def quotes(text: str) -> list[str]:
    """What the first column quotes; names of files, variables and commands have no space."""
    found = [quote for seen in symptoms(text) for quote in re.findall(r"`([^`]+)`", seen)]
    return [one for one in found if " " in one and not one.startswith("persianmind ")]


@cache
def spoken() -> tuple[str, ...]:
    """Every string of the package, joined as Python joins it, with VALUE for what is put in."""
    found = []
    for path in sorted((ROOT / "persianmind").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [text for node in ast.walk(tree) if (text := _text(node)) and " " in text]
    return tuple(found)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else VALUE for part in node.values)
    return ""


def is_said(quote: str) -> bool:
    """Whether a string of the package holds the quote, `...` standing for anything."""
    parts = (re.escape(part.strip(" ")) for part in quote.split("..."))
    # A value may stand at either end of what is quoted, and within it.
    pattern = re.compile(rf"[\s{VALUE}]*.*?".join(parts), flags=re.DOTALL)
    return any(pattern.search(text) for text in spoken())


def headings(page: Path) -> Iterator[str]:
    """As GitHub makes anchors of them."""
    for line in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-")


TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
TEXT = next(iter(TEXTS.values()))
QUOTES = dict.fromkeys(quote for text in TEXTS.values() for quote in quotes(text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_there_are_many_and_each_stands_once(page: Path) -> None:
    found = symptoms(TEXTS[page])
    assert len(found) >= PAGES[page]
    assert len(set(found)) == len(found)
    assert len(quotes(TEXTS[page])) >= PAGES[page] * 2 / 3  # the others are no lines, but what people notice


@pytest.mark.parametrize("quote", QUOTES)
def test_what_is_quoted_is_said(quote: str) -> None:
    assert is_said(quote), quote


@pytest.mark.parametrize(
    "quote", ["is out of memories (...)", "the job ... is found: ...", "step ... of ... saved by"]
)
def test_what_nobody_says_is_noticed(quote: str) -> None:
    """The control."""
    assert not is_said(quote)


def test_its_exit_codes_are_ours() -> None:
    ours = {
        one.exit_code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")
    }
    named = {int(code) for code in re.findall(r"exit code (\d+)", TEXT)}
    assert named <= ours and ours - {2} <= named  # 2 is a mistake, and docs/mistakes.md is full of them
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    assert ours <= {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)}


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_into_pages_meet_a_heading(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert anchor in {*headings(page.parent / target)}, f"{target}#{anchor}"
