"""Languages by code: their English names, and the scripts they are written in.

A code is ISO 639, as language identification has it, with a script's name behind it where a language has
another one here than its usual: `sr_Latin`, `uz_Cyrillic`.
"""

from __future__ import annotations

from dataclasses import dataclass

from persianmind.common.errors import RecipeError, nearest

_BY_SCRIPT = {
    "Latin": (
        "af Afrikaans,az Azerbaijani,bs Bosnian,ca Catalan,ceb Cebuano,cs Czech,cy Welsh,da Danish,de German,"
        "en English,eo Esperanto,es Spanish,et Estonian,eu Basque,fi Finnish,fr French,ga Irish,gl Galician,"
        "ha Hausa,hr Croatian,hu Hungarian,id Indonesian,ig Igbo,is Icelandic,it Italian,jv Javanese,"
        "ku Kurdish,"
        "la Latin,lt Lithuanian,lv Latvian,mg Malagasy,ms Malay,mt Maltese,nl Dutch,no Norwegian,nn Nynorsk,"
        "pl Polish,pt Portuguese,qu Quechua,ro Romanian,rw Kinyarwanda,sk Slovak,sl Slovenian,so Somali,"
        "sq Albanian,su Sundanese,sv Swedish,sw Swahili,tk Turkmen,tl Tagalog,tr Turkish,uz Uzbek,"
        "vi Vietnamese,"
        "xh Xhosa,yo Yoruba,zu Zulu"
    ),
    "Cyrillic": (
        "ba Bashkir,be Belarusian,bg Bulgarian,ce Chechen,cv Chuvash,kk Kazakh,ky Kyrgyz,mk Macedonian,"
        "mn Mongolian,os Ossetian,ru Russian,sah Yakut,sr Serbian,tg Tajik,tt Tatar,uk Ukrainian"
    ),
    "Arabic": (
        "ar Arabic,arz Egyptian Arabic,azb South Azerbaijani,bal Balochi,ckb Central Kurdish,fa Persian,"
        "glk Gilaki,ks Kashmiri,mzn Mazanderani,pnb Western Punjabi,ps Pashto,sd Sindhi,ug Uyghur,ur Urdu"
    ),
    "Devanagari": "bh Bihari,gom Konkani,hi Hindi,mai Maithili,mr Marathi,ne Nepali,sa Sanskrit",
    "Bengali": "as Assamese,bn Bengali,bpy Bishnupriya",
    "Gurmukhi": "pa Punjabi",
    "Gujarati": "gu Gujarati",
    "Oriya": "or Odia",
    "Tamil": "ta Tamil",
    "Telugu": "te Telugu",
    "Kannada": "kn Kannada",
    "Malayalam": "ml Malayalam",
    "Sinhala": "si Sinhala",
    "Thai": "th Thai",
    "Lao": "lo Lao",
    "Myanmar": "my Burmese",
    "Khmer": "km Khmer",
    "Tibetan": "bo Tibetan,dz Dzongkha",
    "Georgian": "ka Georgian,xmf Mingrelian",
    "Armenian": "hy Armenian",
    "Greek": "el Greek",
    "Hebrew": "he Hebrew,yi Yiddish",
    "Ethiopic": "am Amharic,ti Tigrinya",
    "Thaana": "dv Dhivehi",
    "Hangul": "ko Korean",
    "Han": "zh Chinese,wuu Wu Chinese,yue Cantonese",
    "Han Hiragana Katakana": "ja Japanese",
}


# ISO 15924, as catalogues and the hub name scripts.
_SCRIPT_CODES = {
    "Latn": "Latin", "Cyrl": "Cyrillic", "Arab": "Arabic", "Deva": "Devanagari", "Hans": "Han", "Hant": "Han",
    "Beng": "Bengali", "Guru": "Gurmukhi", "Tibt": "Tibetan", "Geor": "Georgian", "Grek": "Greek",
    "Hebr": "Hebrew", "Mong": "Mongolian", "Telu": "Telugu", "Taml": "Tamil",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Language:
    """name: in English. scripts: names of Unicode scripts."""

    name: str
    scripts: tuple[str, ...]


def _table() -> dict[str, Language]:
    table = {}
    for scripts, languages in _BY_SCRIPT.items():
        for entry in languages.split(","):
            code, _, name = entry.partition(" ")
            table[code] = Language(name, tuple(scripts.split()))
    return table


LANGUAGES = _table()


def language_of(code: str) -> Language:
    """The language of a code.

    Raises:
        RecipeError: none is known by it; the message says how to give a profile.
    """
    base, script = _parts(code)
    if base in LANGUAGES and (script,) == LANGUAGES[base].scripts:
        return LANGUAGES[base]
    if script and base in LANGUAGES:
        return Language(language_name(code), (script,))
    if code not in LANGUAGES:
        raise RecipeError(
            f"no language is known by the code {code!r}{nearest(code, LANGUAGES)}; give a profile for it: "
            f"profiles: {{{code}: my-language.yaml}} (docs/languages.md)"
        )
    return LANGUAGES[code]


def language_name(code: str) -> str:
    """The English name of a language; the code itself where none is known."""
    base, script = _parts(code)
    if base not in LANGUAGES:
        return code
    usual = not script or (script,) == LANGUAGES[base].scripts
    return LANGUAGES[base].name if usual else f"{LANGUAGES[base].name} ({script})"


def _parts(code: str) -> tuple[str, str]:
    """The language's own code, and the name of the script behind it or ""."""
    base, _, script = code.replace("-", "_").partition("_")
    return base, _SCRIPT_CODES.get(script, script)
