"""What is particular to one language: its script, its spelling, its prompt.

Persian and Arabic have profiles of their own, one module each. Any other language has the generic one of its
script. A recipe can bring its own, as a YAML file beside it (docs/languages.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from persianmind.common.default_language import target_language
from persianmind.language import arabic, persian
from persianmind.language.codes import language_name, language_of
from persianmind.language.custom import custom_profile
from persianmind.language.generic import generic_profile
from persianmind.language.profile import LanguageProfile
from persianmind.recipe import Recipe
from persianmind.recipe.language import ProfileSpec
from persianmind.recipe.loading import parse_profile

__all__ = [
    "LanguageProfile",
    "language_name",
    "profile_for",
    "profile_named",
    "run_profile",
    "target_language",
    "vocabulary_profile",
]

_OWN = {profile.code: profile for profile in (persian.PROFILE, arabic.PROFILE)}


def profile_for(code: str, profiles: Mapping[str, ProfileSpec] | None = None) -> LanguageProfile:
    """The profile that serves a language code.

    Args:
        code: ISO 639, as in a source's `language`.
        profiles: those that a recipe brings, by code; they come first.

    Raises:
        RecipeError: no profile, and no language known by the code.
    """
    if profiles and code in profiles:
        return custom_profile(code, profiles[code])
    return _OWN[code] if code in _OWN else generic_profile(code, language_of(code))


def profile_named(name: str) -> LanguageProfile:
    """The profile of a language code, or of a profile's YAML file: its `code`, or the file's stem.

    Raises:
        RecipeError: there is none.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        spec = parse_profile(path)
        return custom_profile(spec.code or path.stem, spec)
    return profile_for(name)


def run_profile(recipe: Recipe) -> LanguageProfile:
    """That of the language a run brings a model to: its dialogues are written, and prompts spelled, by it."""
    return profile_for(target_language(recipe.languages()), recipe.profiles)


def vocabulary_profile(recipe: Recipe) -> LanguageProfile:
    """That of the language the new tokens are of."""
    return profile_for(target_language(recipe.vocabulary_languages()), recipe.profiles)
