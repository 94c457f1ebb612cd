"""A profile that a recipe brings: the generic one of its script, with what its YAML says."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from persianmind.common.errors import RecipeError
from persianmind.language.codes import Language
from persianmind.language.generic import NFC_RULE, GenericSpeller, generic_profile, probe_spaces
from persianmind.language.profile import GateProbes, LanguageProfile, Phrases, PromptTemplate
from persianmind.language.script import Script
from persianmind.language.unicode_scripts import characters_in, ranges_of
from persianmind.recipe.language import ProfileSpec


def custom_profile(code: str, spec: ProfileSpec) -> LanguageProfile:
    """The profile that a spec describes.

    Raises:
        RecipeError: Unicode has no script of that name, a letter is none of the script's, or a probe is not
            spelled as its own rules spell it.
    """
    return _custom_profile(code, spec.model_dump_json())


@lru_cache(maxsize=16)
def _custom_profile(code: str, spec_json: str) -> LanguageProfile:
    spec = ProfileSpec.model_validate_json(spec_json)
    plain = generic_profile(code, Language(spec.name, tuple(spec.scripts)))
    script = _script(code, plain.script, spec)
    prompt = plain.prompt
    if spec.prompt is not None:
        prompt = PromptTemplate(spec.prompt.context, spec.prompt.user_turn, spec.prompt.assistant_turn)
    probes = GateProbes(tuple(spec.probes.joined_words), (*probe_spaces(script), *spec.probes.sentences))
    profile = replace(
        plain,
        script=script,
        direction=spec.direction or plain.direction,
        rules={**NFC_RULE, **{name: _told(pairs) for name, pairs in spec.replace.items()}},
        normalise=GenericSpeller(spec.replace),
        probes=probes,
        prompt=prompt,
        quality=replace(plain.quality, siblings=tuple(spec.siblings)),
        phrases=Phrases(
            translate=tuple(spec.phrases.translate),
            languages=spec.phrases.languages,
            answer_by_letter=spec.phrases.answer_by_letter,
            option_letters=tuple(spec.phrases.option_letters),
        ),
    )
    for probe in (*probes.joined_words, *probes.spaces):
        if profile.normalise(probe) != probe:
            raise RecipeError(
                f"profiles.{code}: the probe {probe[:40]!r} is not spelled by the profile's own rules, which "
                f"make {profile.normalise(probe)[:40]!r} of it"
            )
    return profile


def _script(code: str, whole: Script, spec: ProfileSpec) -> Script:
    """The script with the alphabet's letters apart from the rest, which pieces may hold as well.

    ASCII letters of a Latin alphabet stay what they are in the generic profile: shared with all other text.
    """
    letters, rest = whole.letters, ""
    if spec.letters is not None:
        named = {one for one in map(chr, range(0x80)) if re.match(f"[{spec.letters}]", one)}
        alphabet = {*characters_in(spec.letters)}
        known = re.compile(f"[{whole.own_characters}{whole.shared}]")
        strangers = sorted(one for one in named | alphabet if not known.match(one))
        own = {one for one in alphabet if whole.character.match(one)}
        if strangers or not own:
            what = f"{strangers[0]!r} is none of them" if strangers else "there is none"
            scripts = " or ".join(spec.scripts)
            raise RecipeError(f"profiles.{code}: letters must be letters of the script {scripts}; {what}")
        letters = ranges_of(own)
        rest = ranges_of({*characters_in(whole.letters)} - own)
    inner = "".join(map(re.escape, spec.word_characters))
    return replace(
        whole, letters=letters, rare_letters=rest, joiner=spec.joiner, shared=f"{whole.shared}{inner}"
    )


def _told(pairs: dict[str, str]) -> str:
    shown = ", ".join(f"{wrong} to {right}" for wrong, right in list(pairs.items())[:3])
    return shown + (", ..." if len(pairs) > 3 else "")
