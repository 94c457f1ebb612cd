"""Text in UTF-8 that was read with a wrong code page: what it then looks like."""

from __future__ import annotations

import re
from functools import cache

from persianmind.language.profile import MojibakePattern
from persianmind.language.script import Script
from persianmind.language.unicode_scripts import characters_in

# What CP1252, or Latin-1 in its place, makes of continuation bytes.
_CONTINUATION = "\x80-\xbfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™"
# A lead byte of the Arabic block (D8-DB), then a continuation byte.
ARABIC_AS_LATIN = MojibakePattern("ØÙÚÛ", re.compile(f"[ØÙÚÛ][{_CONTINUATION}]"))
# UTF-8 read as CP1256: the same lead bytes are tah, zah, ain and ghain there. Quotation marks and dashes,
# which follow these letters in good text, are left out; no frequent letter needs them.
ARABIC_AS_CP1256 = MojibakePattern(
    "طظعغ", re.compile(r"[طظعغ][\x80-\xaa\xac-\xba\xbc-\xbfŒœˆƒ‚„†‡•…‰‹›€™ٹچژڈگکڑںھہ]")
)


@cache
def latin_mojibake(script: Script) -> tuple[MojibakePattern, ...]:
    """UTF-8 of a script's letters, read as Latin-1 or CP1252.

    Of three-byte scripts a lead is followed by two continuation bytes. Of Latin letters only those of two
    bytes count: what the others become stands in good French.
    """
    letters = characters_in(f"{script.letters}{script.marks}")
    leads = sorted({one.encode("utf-8")[0] for one in letters})
    latin = bool(script.shared) and "A-Z" in script.shared
    leads = [lead for lead in leads if lead < 0xF0 and (not latin or lead < 0xE0)]
    short = "".join(chr(lead) for lead in leads if lead < 0xE0)
    long = "".join(chr(lead) for lead in leads if lead >= 0xE0)
    found = []
    if short:
        found.append(MojibakePattern(short, re.compile(f"[{short}][{_CONTINUATION}]")))
    if long:
        found.append(MojibakePattern(long, re.compile(f"[{long}][{_CONTINUATION}]{{2}}")))
    return tuple(found)
