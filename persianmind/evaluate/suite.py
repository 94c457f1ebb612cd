"""Suites: lists of tasks in YAML, shipped or the user's own; where the data of a task lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.common.errors import RecipeError, nearest
from persianmind.common.paths import resolve_inside
from persianmind.evaluate.families import FAMILIES
from persianmind.evaluate.layouts import layouts
from persianmind.evaluate.rows import HUB
from persianmind.recipe import Section
from persianmind.recipe.section import Count, Name

FOLDER = Path(__file__).parent / "suites"


class Task(Section):
    """One test.

    layout: of its file. file: one, or the files that the layout wants; relative to the data folder, or
    hf://owner/name?config=..&split=... dev: of the same kind, for examples and choices; dev_layout: where it
    differs. few_shot: how many examples of it stand before each item. limit: items, from the first on.
    perturbations: names of changes that every text is put under as well. origin: where to get the file.
    """

    name: Name
    layout: str
    file: str | list[str]
    dev: str | list[str] | None = None
    dev_layout: str | None = None
    language: Name = DEFAULT_LANGUAGE
    few_shot: int = Field(default=0, ge=0)
    limit: Count | None = None
    perturbations: list[str] = Field(default_factory=list)
    licence: str = "unstated"
    origin: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def family(self) -> str:
        """What its items are scored as."""
        return layouts()[self.layout].family


class Suite(Section):
    """name: in results. folder: the one that files are relative to; None: the data folder of the session."""

    name: Name
    tasks: list[Task] = Field(min_length=1)
    folder: Path | None = None


def known_suites() -> dict[str, Path]:
    """The shipped ones by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load_suite(name_or_path: str) -> Suite:
    """A shipped suite by name, a .yaml file, or a .jsonl file of questions with candidates.

    Raises:
        RecipeError: there is none, or it is not usable; the line says why.
    """
    path = known_suites().get(name_or_path, Path(name_or_path))
    if path.suffix == ".jsonl" and path.is_file():
        task = Task(name=_name_of(path), layout="choice", file=path.name)
        return Suite(name=_name_of(path), tasks=[task], folder=path.parent)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        known = known_suites()
        raise RecipeError(
            f"no suite {name_or_path!r}{nearest(name_or_path, known)}; give one of: {', '.join(known)}, or "
            "the path of a .yaml file, or of a .jsonl file with question, candidates and answer"
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        suite = Suite.model_validate(tree)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{path}: {place}: {first['msg']}") from None
    for task in suite.tasks:
        check_task(task, str(path))
    return suite if path.parent == FOLDER else suite.model_copy(update={"folder": path.parent})


def check_task(task: Task, where: str) -> None:
    """Its layouts and options are known.

    Raises:
        RecipeError: they are not.
    """
    for name in filter(None, (task.layout, task.dev_layout)):
        if name not in layouts():
            known = ", ".join(layouts())
            hint = nearest(name, layouts())
            raise RecipeError(f"{where}: task {task.name}: no layout {name!r}{hint}; known are: {known}")
    options_of(task, where)


def options_of(task: Task, where: str = "suite") -> Section:
    """The task's options as its family's.

    Raises:
        RecipeError: a key is unknown, or its value not usable.
    """
    kind = FAMILIES[task.family].options
    try:
        return kind.model_validate(task.options)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        hint = nearest(place, kind.model_fields)
        raise RecipeError(f"{where}: task {task.name}: options.{place}: {first['msg']}{hint}") from None


def places_of(suite: Suite, files: str | list[str], data: Path) -> list[str]:
    """Where files of a task lie: inside the suite's folder, beside a shipped suite, or in the data folder.

    Raises:
        PersianMindError: a path leaves the folder.
    """
    named = [files] if isinstance(files, str) else files
    roots = [suite.folder or (FOLDER if (FOLDER / one).is_file() else data) for one in named]
    return [
        one if one.startswith(HUB) else str(resolve_inside(root, one))
        for one, root in zip(named, roots, strict=True)
    ]


def _name_of(path: Path) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem).strip("._-")
    return kept or "suite"
