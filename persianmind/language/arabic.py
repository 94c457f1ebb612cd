"""The profile of Arabic: its letters and vowel marks are kept as they are."""

from __future__ import annotations

from persianmind.language.arabic_script import ARABIC_SCRIPT, SYMBOL, ArabicScriptSpeller
from persianmind.language.generic import generic_prompt
from persianmind.language.mojibake import ARABIC_AS_CP1256, ARABIC_AS_LATIN
from persianmind.language.profile import GateProbes, LanguageProfile, Phrases, QualityPatterns

__all__ = ["PROFILE"]

_normalise = ArabicScriptSpeller({}, first_digit=0x0660, half_spaces=False)

PROFILE = LanguageProfile(
    name="Arabic",
    code="ar",
    direction="rtl",
    script=ARABIC_SCRIPT,
    rules=_normalise.rules,
    normalise=_normalise,
    probes=GateProbes(
        spaces=(
            *(f"{' ' * n}كتاب{' ' * n}جديد{' ' * n}" for n in (1, 2, 3, 7, 17, 40)),
            "بِسْمِ اللَّهِ الرَّحْمَٰنِ الرَّحِيمِ",
            "مدرسةٌ كبيرة، ومكتبةٌ؛ هل رأيتَها؟ ١٢٣",
        )
    ),
    prompt=generic_prompt("ar", "Arabic"),
    quality=QualityPatterns(
        symbol=SYMBOL,
        mojibake=(ARABIC_AS_LATIN, ARABIC_AS_CP1256),
        siblings=("arz",),
    ),
    phrases=Phrases(
        translate=(
            "ترجم النص التالي من {source} إلى {target}:",
            "ترجم هذا النص إلى {target}:",
            "ما ترجمة هذا النص إلى {target}؟",
        ),
        languages={
            "ar": "العربية", "de": "الألمانية", "en": "الإنجليزية", "es": "الإسبانية", "fa": "الفارسية",
            "fr": "الفرنسية", "ru": "الروسية", "tr": "التركية", "ur": "الأردية", "zh": "الصينية",
        },
        answer_by_letter="أجب بحرف الخيار الصحيح فقط.",
        option_letters=("أ", "ب", "ج", "د"),
    ),
    digits=True,
)  # fmt: skip
