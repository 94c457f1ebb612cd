"""Help of commands for people: names of what is wanted instead of Python's types."""

from __future__ import annotations

from typing import Any

import typer

WANTED = {"<str>": "TEXT", "<path>": "PATH", "<int>": "N", "<int range>": "N", "<float>": "NUMBER"}
WANTED["<float range>"] = WANTED["<float>"]


def name_wanted(command: Any, context: typer.Context | None = None) -> Any:
    """The same command, and those below it, with a metavar for each parameter; none for a switch."""
    here = typer.Context(command, parent=context)
    for parameter in command.get_params(here):  # --help among them
        if parameter.metavar is None:
            parameter.metavar = _wanted(parameter, str(parameter.display_type(here) or ""))
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _no_type  # its name says what it is
    for one in getattr(command, "commands", {}).values():
        name_wanted(one, here)
    return command


def _wanted(parameter: Any, kind: str) -> str | None:
    """None: typer's own, such as the values of a choice."""
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    if kind == "<bool>" or parameter.is_flag:
        return ""
    return WANTED.get(kind.lower().replace("list[", "").replace("]", ""))


def _no_type(ctx: typer.Context) -> str:
    return ""
