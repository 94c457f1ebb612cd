"""What a run's text and tokenizer make of its language, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from persianmind.checks.base import CheckResult
from persianmind.language import LanguageProfile
from persianmind.language.script import script_ratio
from persianmind.recipe import Normalise
from persianmind.vocab.families import open_files
from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.learn import Learned

MIN_OWN_RATIO = 0.5


def language_finding(
    profile: LanguageProfile,
    options: Normalise,
    texts: Sequence[str],
    base: BaseTokenizer | None,
    learned: Learned | None,
) -> CheckResult:
    """Which profile serves the text of the vocabulary, whether that is the script it is in, and what new
    tokens win.

    Args:
        profile: of the language that the recipe says the text is in.
        options: of its normaliser.
        texts: a sample of it, normalised.
        base: the tokenizer; None where it is not here.
        learned: the new pieces; None where none were learned.
    """
    script = profile.script
    rules = ", ".join(rule for rule in profile.rules if options.has(rule))
    spelled = f"its text is normalised by: {rules}" if options.enabled else "its text is left as it is"
    told = [f"{profile.name} ({profile.code}), {profile.direction}; {spelled}"]
    ratio = script_ratio("\n".join(texts), script)
    if base is not None and learned is not None and learned.pieces and texts:
        told.append(_gain(profile, texts, base, learned))
    if not script.is_spaced:
        told.append(
            "it puts no spaces between words: a new piece has at most "
            f"{script.max_piece_characters} characters"
        )
    if "A-Z" in script.shared:
        told.append(
            "only pieces with a letter outside ASCII are added, so that no English text changes its ids"
        )
    detail = "; ".join(told)
    if ratio is not None and ratio < MIN_OWN_RATIO:
        return CheckResult.warn(
            "language",
            f"only {ratio:.0%} of the letters of the text are {profile.name}: is `language` of its "
            f"sources right? {detail}",
        )
    return CheckResult.ok("language", detail)


def _gain(profile: LanguageProfile, texts: Sequence[str], base: BaseTokenizer, learned: Learned) -> str:
    """Tokens per word before and after; per character where words do not stand apart."""
    expanded = open_files(base.files(learned, pad_token=False))
    before, after = (sum(map(len, one.encode(texts))) for one in (base, expanded))
    per_word = profile.script.is_spaced
    units = sum(len(text.split()) if per_word else len(text) for text in texts)
    unit = "word" if per_word else "character"
    return (
        f"{before / max(1, units):.2f} tokens per {unit}, about {after / max(1, units):.2f} with the new ones"
    )
