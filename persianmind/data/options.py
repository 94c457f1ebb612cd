"""What the commands of `persianmind data` take: a recipe, or sources on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persianmind.common.errors import RecipeError

if TYPE_CHECKING:
    from persianmind.recipe import Recipe

RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="A shipped recipe's name or a .yaml file: all its sources.")
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option("--source", help="A file, glob, folder, URL, hf:// or package://; several give one source."),
]
KindOption = Annotated[str, typer.Option(help="Records of --source: text, instruction or parallel.")]
LanguageOption = Annotated[
    str, typer.Option(help="Language of --source: an ISO 639 code, or a profile, a .yaml file.")
]
FieldOption = Annotated[str, typer.Option(help="Field or column of --source that holds the text.")]
OverrideArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Settings of the recipe (data.seq_len=1024), or further URIs of --source."),
]
# What tells a setting from a URI among the arguments: hf://owner/name?split=test is no setting.
_SETTING = re.compile(r"[a-z_]+(\.[A-Za-z0-9_-]+)+=")


def recipe_of(
    name: str | None, uris: list[str] | None, kind: str, language: str, text_field: str, settings: list[str]
) -> Recipe:
    """The recipe named, or one made of the sources given."""
    from persianmind.recipe.loading import load_recipe, parse_recipe, read_profile
    from persianmind.recipe.overrides import apply_override

    if (name is None) == (not uris):
        raise RecipeError("give either --recipe or one or more --source")
    if uris:
        # --source *.jsonl, as the shell expands it: the first file follows the flag, the others stand alone
        uris = uris + [setting for setting in settings if not _SETTING.match(setting)]
        settings = [setting for setting in settings if _SETTING.match(setting)]
    if name is not None:
        return load_recipe(name, settings)
    own = read_profile(Path(language)) if Path(language).suffix in {".yaml", ".yml"} else None
    code = language if own is None else own.get("code") or Path(language).stem
    entry = {"uri": uris, "kind": kind, "language": code, "text_field": text_field}
    tree: dict[str, Any] = {
        "name": "data",
        "base": "none",
        "profiles": {} if own is None else {code: own},
        "sources": {"source": entry},
        "stages": [{"name": "all", "sources": {"source": 1.0}, "epochs": 1.0}],
    }
    for setting in settings:
        apply_override(tree, setting)
    return parse_recipe(tree, place="command line")
