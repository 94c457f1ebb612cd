"""`persianmind submit`: `cluster/submit.py` from any folder."""

from __future__ import annotations

from collections.abc import Sequence

import typer

PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
PROG = "persianmind submit"


def submit_recipe(
    words: typer.Context,
) -> None:
    """Train on a Ray cluster: RECIPE --address URL; then status, logs or stop ID. --help lists the flags."""
    from persianmind.cluster.command import main

    main(with_recipe_flag(words.args or ["--help"]), PROG)


def with_recipe_flag(words: Sequence[str]) -> list[str]:
    """The recipe may stand first, as everywhere else; `cluster/submit.py` wants it behind its flag."""
    from persianmind.cluster.command import COMMANDS

    first = words[0]
    stands_first = not (first in COMMANDS or first.startswith("-") or "=" in first)
    return ["--recipe", *words] if stands_first else list(words)
