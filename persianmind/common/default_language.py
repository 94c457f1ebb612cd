"""Which language is meant: of what names none, and among several."""

from __future__ import annotations

from collections.abc import Sequence

# Of sources, commands and tests that name none.
DEFAULT_LANGUAGE = "fa"


def target_language(codes: Sequence[str]) -> str:
    """Of several languages the one that a model is brought to: the first that is not English."""
    return next((code for code in codes if code != "en"), "en")
