"""The engines there are: every package in this folder that has a `BACKEND`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from persianmind.common.errors import UsageError, nearest

if TYPE_CHECKING:
    from persianmind.engine.base import Backend

DEFAULT_ENGINE = "deepspeed"


def known_engines() -> list[str]:
    """Names of the packages beside this module."""
    import persianmind.engine

    return [found.name for found in pkgutil.iter_modules(persianmind.engine.__path__) if found.ispkg]


def backend(name: str = DEFAULT_ENGINE) -> Backend:
    """The engine called `name`.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in known_engines():
        raise UsageError(f"no engine {name!r}{nearest(name, known_engines())}")
    found: Backend = importlib.import_module(f"persianmind.engine.{name}").BACKEND
    return found
