"""What a run changed in each language: from the base's score to that of the last stage, and whether the
intervals tell the two apart."""

from __future__ import annotations

from dataclasses import dataclass

from persianmind.report.languages import PageLanguage, languages
from persianmind.report.read import RunFiles
from persianmind.report.values import number, quotient
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.records import BASE_STAGE
from persianmind.run.scores import scores_by_stage

NOISE_PERCENT = 0.5  # a change of bits per byte below this is called unchanged


@dataclass(frozen=True, slots=True)
class Gain:
    """One language from `base` to `last`; best: the lowest of all later stages; percent: the change of bits
    per byte, None where it is none."""

    language: PageLanguage
    base: EvaluationResult
    last: EvaluationResult
    best: EvaluationResult
    percent: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the 95% intervals of the two scores lie apart."""
        base_low, base_high = number(self.base.ci_low), number(self.base.ci_high)
        last_low, last_high = number(self.last.ci_low), number(self.last.ci_high)
        if base_low is None or base_high is None or last_low is None or last_high is None:
            return False
        return last_high < base_low or last_low > base_high

    @property
    def big(self) -> str:
        """The change in a few words, its direction in one of them."""
        if self.percent is None:
            return "–"
        if abs(self.percent) < NOISE_PERCENT:
            return "unchanged"
        return f"{abs(self.percent):.1f}% {'fewer' if self.percent < 0 else 'more'}"

    @property
    def path(self) -> str:
        """Both scores."""
        return f"{self.base.bits_per_byte:.3f} → {self.last.bits_per_byte:.3f} bits per byte"

    @property
    def verdict(self) -> str:
        """What the change means."""
        if self.percent is None or abs(self.percent) < NOISE_PERCENT:
            return "bits per byte, as the base model"
        if not self.is_clear:
            return "bits per byte; the intervals overlap, so it may be chance"
        if self.percent < 0:
            return "bits per byte: it predicts the text better"
        worse = "worse" if self.language.role == "target" else "some was forgotten"
        return f"bits per byte: {worse}"

    @property
    def sentence(self) -> str:
        """The change as part of a sentence; "" where there is none."""
        if self.percent is None:
            return ""
        sure = "beyond" if self.is_clear else "within"
        change = self.big if self.big == "unchanged" else f"{self.big}, {sure} the 95% intervals"
        best = ""
        if self.best.bits_per_byte < min(self.last.bits_per_byte, self.base.bits_per_byte):
            best = f", its best {self.best.bits_per_byte:.3f} after {self.best.stage}"
        return (
            f"{self.language.name} went from {self.base.bits_per_byte:.3f} to {self.last.bits_per_byte:.3f} "
            f"bits per byte ({change}{best})"
        )


def gains(run: RunFiles) -> list[Gain]:
    """Of each language that the base and a later stage were scored on, in the page's order."""
    scores = scores_by_stage(run.results)
    base = scores.get(BASE_STAGE, {})
    later = [found for stage, found in scores.items() if stage != BASE_STAGE]
    found = []
    for language in languages(run):
        scored = [one[language.code] for one in later if language.code in one]
        if scored and language.code in base:
            first, last = base[language.code], scored[-1]
            best = min(scored, key=lambda one: one.bits_per_byte)
            found.append(Gain(language, first, last, best, change_percent(last, first)))
    return found


def change_percent(score: EvaluationResult | None, base: EvaluationResult | None) -> float | None:
    """Change of bits per byte against the base in percent."""
    bits, before = (None if one is None else number(one.bits_per_byte) for one in (score, base))
    return None if bits is None or before is None else quotient(bits - before, before, 100)
