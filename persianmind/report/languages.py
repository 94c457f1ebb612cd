"""The languages of a run: which one it brings a model to, and how each is called and written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from persianmind.language import LanguageProfile, language_name, profile_for, target_language
from persianmind.report.read import RunFiles

ENGLISH_CODE = "en"
OTHER_ROLES = ("third", "soft")  # in turn, where more than two languages are held out


@dataclass(frozen=True, slots=True)
class PageLanguage:
    """One language as the page shows it.

    tag, direction: for the attributes lang and dir of text in it; "" and auto where they are not known.
    role: its colour, as the classes of style.css call it; never a word of the run's files.
    """

    code: str
    name: str
    tag: str
    direction: Literal["ltr", "rtl", "auto"]
    role: str


def languages(run: RunFiles) -> list[PageLanguage]:
    """The target, English, and whatever else is held out.

    English stands for what the model knew before: it is there, unmeasured, where no other language is.
    """
    first = target(run)
    held_out = [] if run.valid_recipe is None else run.valid_recipe.held_out_languages()
    known = dict.fromkeys([*held_out, *_scored(run)])
    others = [code for code in known if code not in (first.code, ENGLISH_CODE)]
    found = [first]
    if first.code != ENGLISH_CODE and (ENGLISH_CODE in known or not others):
        found.append(_shown(run, ENGLISH_CODE, "english"))
    found += [_shown(run, code, OTHER_ROLES[index % len(OTHER_ROLES)]) for index, code in enumerate(others)]
    return found


def target(run: RunFiles) -> PageLanguage:
    """The language that the run brings a model to: by its recipe, else by what was scored or prepared."""
    if run.valid_recipe is not None:
        return _target_of(run, run.valid_recipe.languages())
    return _target_of(run, _scored(run) or [manifest.language for manifest in run.data.values()])


def vocabulary_target(run: RunFiles) -> PageLanguage:
    """The language that the new tokens are of."""
    recipe = run.valid_recipe
    return target(run) if recipe is None else _target_of(run, recipe.vocabulary_languages())


def shown_name(run: RunFiles, code: str) -> str:
    """How a language is called in English; its code where no name is known."""
    profile = _profile(run, code)
    return language_name(code) if profile is None else profile.name


def _target_of(run: RunFiles, codes: Sequence[str]) -> PageLanguage:
    if not codes:
        return PageLanguage("", "Target language", "", "auto", "target")
    return _shown(run, target_language(codes), "target")


def _shown(run: RunFiles, code: str, role: str) -> PageLanguage:
    profile = _profile(run, code)
    direction = "auto" if profile is None else profile.direction
    tag = re.split("[-_]", code)[0]  # a script behind it is named in full, as no tag of HTML has it
    return PageLanguage(code, shown_name(run, code), tag, direction, role)


def _profile(run: RunFiles, code: str) -> LanguageProfile | None:
    profiles = None if run.valid_recipe is None else run.valid_recipe.profiles
    try:
        return profile_for(code, profiles)
    except Exception:  # whatever the files call a language, the page is made
        return None


def _scored(run: RunFiles) -> list[str]:
    return list(dict.fromkeys(result.language for result in run.results.evaluation))
