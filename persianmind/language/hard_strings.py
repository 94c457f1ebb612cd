"""Strings on which two tokenizers that should be one most often differ."""

from __future__ import annotations

HARD_STRINGS = (
    "",
    " ",
    "\n\n \t\r\n",
    "می‌خواهم کتاب‌هایم را بخوانم.",
    "\u200cلبه\u200c \u200c\u200c",
    "۱۲۳۴۵۶۷۸۹۰ 1234567890 ٠١٢٣٤٥٦٧٨٩",
    "بِسْمِ اللَّهِ الرَّحْمَٰنِ الرَّحِيمِ",
    "«گیومه»؛ پرسش؟ ٪۵۰ … – — ریال ﷼ ﷲ ﷺ",
    "ژ چ پ گ ئ ؤ أ إ ة ۀ هٔ ي ك",
    "def f(x):\n    return x ** 2  # تعریف تابع\n",
    "http://example.com/?q=سلام&n=1",
    "🙂👩‍👩‍👧‍👦 \ufeff\u2028\u202eabc\u202c é e\u0301 \U0010ffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 20,
    "  two  spaces   three    four ",
    "don't I'LL we've 'tis",
)
