"""What is particular to one language: its script, its spelling, its prompt.

A language is a module of this package with a constant `PROFILE`; it is found by being there.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from persianmind.language.profile import LanguageProfile

__all__ = ["DEFAULT_LANGUAGE", "LanguageProfile", "default_profile", "profile_among", "profile_for"]

DEFAULT_LANGUAGE = "fa"


def profile_for(code: str) -> LanguageProfile:
    """The profile that serves a language code.

    A code that no profile serves ("en" too) gets the default one, Persian: its normaliser leaves text
    without Arabic script as it is, so sources of all languages may go through it.
    """
    profiles = _discover()
    return profiles.get(code, profiles[DEFAULT_LANGUAGE])


def profile_among(codes: Sequence[str]) -> LanguageProfile:
    """Of the languages of a run, the profile of the first that has one of its own; else the default one."""
    profiles = _discover()
    return profile_for(next((code for code in codes if code in profiles), DEFAULT_LANGUAGE))


def default_profile() -> LanguageProfile:
    """The profile of `DEFAULT_LANGUAGE`."""
    return profile_for(DEFAULT_LANGUAGE)


@cache
def _discover() -> dict[str, LanguageProfile]:
    """Every profile of the package, by each of its codes.

    Raises:
        ValueError: two modules serve one code.
    """
    found: dict[str, LanguageProfile] = {}
    for module in pkgutil.iter_modules(__path__):
        profile = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PROFILE", None)
        if not isinstance(profile, LanguageProfile):
            continue
        for code in profile.codes:
            if code in found:
                both = f"{found[code].name} and {profile.name}"
                raise ValueError(f"language code {code!r} is served by both {both}")
            found[code] = profile
    return found
