"""One source, and everything that turning its records into clean documents depends on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import xxhash
from pydantic import Field

from persianmind.common.errors import RecipeError, nearest
from persianmind.language import LanguageProfile, profile_for
from persianmind.recipe import Normalise, Quality, Recipe, Source
from persianmind.recipe.language import ProfileSpec
from persianmind.recipe.section import Name, Ratio, Section

# As pydantic's `exclude` wants it.
SHOWN: dict[str, Any] = {"source": {"licence"}, "profiles": {"__all__": {"direction"}}}


class SourceSpec(Section):
    """What a recipe says about one source's text. Plain JSON: it is sent to other processes.

    profiles: of the source's languages, those that the recipe brings.
    held_out_ratio: the part of all documents that is held out, whatever their source; 0 holds out none.
    """

    name: Name
    source: Source
    normalise: Normalise
    quality: Quality
    held_out_ratio: Ratio
    seed: int
    profiles: dict[Name, ProfileSpec] = Field(default_factory=dict)

    @property
    def profile(self) -> LanguageProfile:
        """That of the source's language; of a pair's first one that is not English."""
        return self.profile_of(self.source.target)

    def content_json(self) -> str:
        """What its documents depend on: all of this but for what is only shown to people."""
        return self.model_dump_json(exclude=SHOWN)

    def profile_of(self, code: str) -> LanguageProfile:
        """That of another language of the source's records."""
        return profile_for(code, self.profiles)

    def is_held_out(self, key: str) -> bool:
        """Whether the document stays out of all training, the vocabulary included.

        Keys are shared by sources (a poem and its interpretation), so the split holds for every source as
        soon as anything held out is evaluated.
        """
        return is_held_out(key, seed=self.seed, ratio=self.held_out_ratio)


def is_held_out(key: str, *, seed: int, ratio: float) -> bool:
    """Whether the document `key` belongs to the held-out split: a keyed hash, so order never matters."""
    digest = xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"), seed=seed)
    return digest < ratio * 2**64


def source_spec(recipe: Recipe, name: str) -> SourceSpec:
    """The spec of one source of a recipe.

    Raises:
        RecipeError: its language is not known and has no profile, or the recipe switches a rule that no
            profile of its languages has.
    """
    source = recipe.sources[name]
    _check_options(recipe)
    return SourceSpec(
        name=name,
        source=source,
        normalise=recipe.normalise,
        quality=recipe.quality,
        held_out_ratio=recipe.heldout.ratio if recipe.heldout.sources else 0.0,
        seed=recipe.seed,
        profiles={code: spec for code, spec in recipe.profiles.items() if code in source.codes},
    )


def _check_options(recipe: Recipe) -> None:
    codes = {code for source in recipe.sources.values() for code in source.codes}
    profiles = [profile_for(code, recipe.profiles) for code in sorted(codes)]
    known = list(dict.fromkeys(rule for profile in profiles for rule in profile.rules))
    for rule in recipe.normalise.rules:
        if rule not in known:
            raise RecipeError(
                f"normalise.rules: no rule {rule!r}{nearest(rule, known)}; the languages of this recipe "
                f"have: {', '.join(known)}"
            )
    asked = [
        f"{key}={value}"
        for key in ("digits", "diacritics")
        if (value := getattr(recipe.normalise, key)) != "keep"
    ]
    if asked and not any(profile.digits for profile in profiles):
        names = " and ".join(profile.name for profile in profiles)
        raise RecipeError(f"normalise.{asked[0]}: the profile of {names} has no such rule; leave it out")


def source_specs(recipe: Recipe, names: Iterable[str]) -> list[SourceSpec]:
    """The specs of several sources, in the order of `names`."""
    return [source_spec(recipe, name) for name in names]
