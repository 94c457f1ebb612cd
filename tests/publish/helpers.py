"""What tests of published folders share."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe, parse_recipe

Write = Callable[..., tuple[ModelCard, str]]


def tiny(**changes: Any) -> Recipe:
    """The tiny recipe with keys such as `sources__poems__licence` replaced."""
    tree = load_recipe("tiny").model_dump(mode="json")
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = tree
        for parent in parents:
            place = place[parent]
        place[last] = value
    return parse_recipe(tree, "test")


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
