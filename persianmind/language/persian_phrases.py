"""What our own tasks say in Persian."""

from __future__ import annotations

from persianmind.language.profile import Phrases, QuestionWording

PHRASES = Phrases(
    translate=(
        "متن زیر را از {source} به {target} ترجمه کن:",
        "این متن را به {target} برگردان:",
        "ترجمهٔ {target} این متن چیست؟",
        "به {target} ترجمه کن:",
    ),
    languages={
        "ar": "عربی", "az": "ترکی آذربایجانی", "ckb": "کردی سورانی", "de": "آلمانی", "en": "انگلیسی",
        "es": "اسپانیایی", "fa": "فارسی", "fr": "فرانسوی", "hi": "هندی", "it": "ایتالیایی", "ja": "ژاپنی",
        "ku": "کردی", "ps": "پشتو", "ru": "روسی", "tg": "تاجیکی", "tr": "ترکی", "ur": "اردو", "zh": "چینی",
    },
    answer_by_letter="فقط حرف گزینهٔ درست را بنویس.",
    option_letters=("الف", "ب", "ج", "د"),
    questions={
        "entailment": QuestionWording(
            "با توجه به متن، این جمله درست است؟ «{second}»", ("درست است", "معلوم نیست", "نادرست است")
        ),
        "paraphrase": QuestionWording(
            "آیا این دو پرسش یک معنا دارند؟ «{first}» و «{second}»", ("خیر", "بله")
        ),
        "translate_message": QuestionWording("این متن را به فارسی ترجمه کن.", ()),
        "interpret_poem": QuestionWording("این غزل حافظ را به نثر ساده تفسیر کن.", ()),
        "omen_of_poem": QuestionWording("فال این غزل حافظ چیست؟ کوتاه پاسخ بده.", ()),
    },
    samples=("پایتخت ایران کجاست؟", "یک بیت از حافظ بنویس."),
)  # fmt: skip
