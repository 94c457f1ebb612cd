"""What tests of published folders share."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt


def snippet(text: str) -> str:
    """The one Python code block of a card."""
    (found,) = (token.content for token in MarkdownIt().parse(text) if token.info == "python")
    return str(found)


def run_snippet(text: str, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs it as a user would, from inside the folder; returns its variables."""
    script = folder.parent / "snippet.py"
    script.write_text(snippet(text), encoding="utf-8")
    patch.chdir(folder)
    return runpy.run_path(str(script))
