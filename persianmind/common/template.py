"""Templates of ours (jinja2): every value is cleaned and escaped, none is ever taken for markup."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

# What HTML forbids, and the bidirectional controls that could make one value reorder its neighbours.
_UNWANTED = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)])
_UNWANTED |= dict.fromkeys([0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069])


def clean(value: object) -> object:
    """A value without control characters, bidirectional controls and lone surrogates.

    Runs on every expression of every template; what macros return is markup already and stays as it is.
    """
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    return value.translate(_UNWANTED).encode("utf-8", "replace").decode("utf-8")


@cache
def load_template(folder: Path, name: str) -> Template:
    """The template `name` of `folder`, compiled once per process.

    Raises:
        jinja2.TemplateNotFound: there is none.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
