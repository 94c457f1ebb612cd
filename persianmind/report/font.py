"""The font for Arabic script that travels in the page: a subset of Vazirmatn (fonts/OFL.txt)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from persianmind.report.languages import PageLanguage

FONT = Path(__file__).parent / "fonts" / "vazirmatn-arabic.woff2"
FAMILY = "Vazirmatn Arabic"


def font_face(shown: Sequence[PageLanguage]) -> Markup:
    """The CSS rule that holds the font; "" for a page without text from right to left."""
    if not any(language.direction == "rtl" for language in shown):
        return Markup()
    content = base64.b64encode(FONT.read_bytes()).decode("ascii")
    return Markup(
        f'@font-face{{font-family:"{FAMILY}";font-display:block;'
        f"src:url(data:font/woff2;base64,{content}) format('woff2')}}"
    )
