"""Translation, generated in the trained prompt and scored by sacrebleu, raw and with one spelling.

A language is typed in more ways than one: a sentence scores 17.7 BLEU against itself with one letter from
another keyboard. So every score stands twice: of what was written, and of hypothesis and reference normalised
alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.common.errors import DataError
from persianmind.evaluate.families.base import NotPossibleError, Numbered, Record, TaskContext, TaskFamily
from persianmind.evaluate.items import TranslationItem
from persianmind.evaluate.measured import ItemScores, Measured
from persianmind.evaluate.stats import ConfidenceInterval, wilson
from persianmind.language import LanguageProfile, language_name
from persianmind.language.script import script_ratio
from persianmind.recipe import Section
from persianmind.recipe.section import Count, Name
from persianmind.run.evaluation_records import Comparison

RESAMPLES = 500
RIGHT_SCRIPT = 0.5  # of its letters


class TranslationOptions(Section):
    """source, target: languages of the two sides. direction: `backward` swaps the file's sides.
    instruction: what is asked; {source} and {target} stand for the languages' names. spm: a SentencePiece
    model on disk, for spBLEU (FLORES' own is not fetched)."""

    source: Name = "en"
    target: Name = DEFAULT_LANGUAGE
    direction: Literal["forward", "backward"] = "forward"
    instruction: str = "Translate the following {source} text into {target}:"
    max_new_tokens: Count = 256
    spm: str | None = None


class Translation(TaskFamily[TranslationItem]):
    """chrF++ first, then BLEU; outputs that are none are counted."""

    name: ClassVar[str] = "translation"
    options: ClassVar[type[Section]] = TranslationOptions

    def check(self, context: TaskContext) -> None:
        if context.model.form is None and not context.examples:
            raise NotPossibleError(
                "the model has no chat template; give few_shot and dev, to ask by examples"
            )

    def score(self, context: TaskContext, numbered: Numbered[TranslationItem]) -> Iterator[Record]:
        for number, item in sorted(numbered.items.items()):
            source, reference = _sides(item, context.options)
            yield {
                "item": number,
                "source": source,
                "reference": reference,
                "hypothesis": _translate(context, source),
            }

    def measure(self, context: TaskContext, records: Sequence[Record]) -> list[Measured]:
        if not records:
            return []
        profile = context.model.profile(context.options.target)
        return [*corpus_scores(context.options, records, profile), *_counts(records, profile)]

    def prompt_parts(self, context: TaskContext) -> Sequence[str]:
        return (
            _instruction(context.options),
            str(context.options.max_new_tokens),
            *(text for example in context.examples for text in example.texts),
        )

    def compare(
        self, first: Sequence[Measured], second: Sequence[Measured], model: str
    ) -> list[Comparison | None]:
        """Corpus scores by paired bootstrap (Koehn 2004), the counts as elsewhere."""
        found = super().compare(first, second, model)
        others = {one.metric: one for one in second}
        return [
            _bootstrapped(one, others[one.metric], model)
            if isinstance(one, CorpusMeasured) and one.metric in others
            else comparison
            for one, comparison in zip(first, found, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class CorpusMeasured(Measured):
    """A score of a whole corpus. sentences: (hypothesis, reference) by item; scorer: makes the score of some
    of them, on the scale of the value."""

    sentences: Any = None
    scorer: Any = None


class _Scorer:
    """One metric of sacrebleu over sentences, as often as a bootstrap asks: each sentence's counts are taken
    once."""

    def __init__(self, metric: Any, sentences: dict[int, tuple[str, str]]) -> None:
        self._metric = metric
        self._items = sorted(sentences)
        self._hypotheses = [sentences[item][0] for item in self._items]
        self._references = [sentences[item][1] for item in self._items]

    @property
    def signature(self) -> str:
        return str(self._metric.get_signature())

    def score(self) -> float:
        """Of the whole corpus, 0 to 100."""
        return float(self._metric.corpus_score(self._hypotheses, [self._references]).score)

    @cached_property
    def resampled(self) -> list[float]:
        """Scores of corpora that are drawn from this one; the same draws for every model."""
        import numpy as np

        counts = np.array(self._metric._extract_corpus_statistics(self._hypotheses, [self._references]))
        random = np.random.default_rng(0)
        draws = (random.integers(0, len(counts), len(counts)) for _ in range(RESAMPLES))
        return [float(self._metric._compute_score_from_stats(counts[one].sum(axis=0).tolist()).score)
                for one in draws]  # fmt: skip


def corpus_scores(
    options: TranslationOptions, records: Sequence[Record], profile: LanguageProfile
) -> Iterator[Measured]:
    """chrF++ and BLEU (spBLEU where its model is on disk), raw and normalised, with their signatures.

    Raises:
        DataError: the SentencePiece model cannot be read.
    """
    from sacrebleu.metrics import BLEU, CHRF

    normalise = profile.normalise
    raw = {record["item"]: (record["hypothesis"], record["reference"]) for record in records}
    spelled = {item: (normalise(one), normalise(other)) for item, (one, other) in raw.items()}
    makers: list[tuple[str, Callable[[], Any], Callable[[str], str]]] = [
        ("chrf++", lambda: CHRF(word_order=2), str),
        ("bleu", lambda: BLEU(effective_order=False), str),
    ]
    if options.spm is not None:
        makers.append(("spbleu", lambda: BLEU(tokenize="none", force=True), _pieces(options.spm)))
    for name, make, cut in makers:
        for spelling, sentences in (("normalised", spelled), ("raw", raw)):
            cut_sentences = {item: (cut(one), cut(other)) for item, (one, other) in sentences.items()}
            scorer = _Scorer(make(), cut_sentences)
            value = scorer.score()
            ordered = sorted(scorer.resampled)
            low, high = ordered[int(0.025 * RESAMPLES)], ordered[int(0.975 * RESAMPLES) - 1]
            yield CorpusMeasured(
                name if spelling == "normalised" else f"{name}_raw",
                value,
                len(records),
                ConfidenceInterval(low, high),
                settings={"signature": scorer.signature, "spelling": spelling},
                sentences=cut_sentences,
                scorer=scorer,
            )


def _bootstrapped(first: CorpusMeasured, second: Measured, model: str) -> Comparison | None:
    if not isinstance(second, CorpusMeasured) or first.sentences.keys() != second.sentences.keys():
        return None
    differences = [a - b for a, b in zip(first.scorer.resampled, second.scorer.resampled, strict=True)]
    ordered = sorted(differences)
    observed = (first.value or 0.0) - (second.value or 0.0)
    # How often a resampled difference lies as far from the observed one as that lies from 0.
    reached = sum(abs(one - observed) >= abs(observed) - 1e-12 for one in differences)
    return Comparison(
        model=model,
        value=second.value or 0.0,
        difference=observed,
        ci_low=ordered[int(0.025 * RESAMPLES)],
        ci_high=ordered[int(0.975 * RESAMPLES) - 1],
        test="paired bootstrap",
        p_value=(reached + 1) / (RESAMPLES + 1),
    )


def _counts(records: Sequence[Record], profile: LanguageProfile) -> Iterator[Measured]:
    """Outputs that are no translation: empty, the source again, in another script."""
    normalise = profile.normalise
    tests: dict[str, Callable[[Record], bool]] = {
        "empty_ratio": lambda record: not record["hypothesis"].strip(),
        "copied_ratio": lambda record: (
            bool(record["hypothesis"].strip())
            and normalise(record["hypothesis"]).strip() == normalise(record["source"]).strip()
        ),
        "wrong_script_ratio": lambda record: (
            (script_ratio(record["hypothesis"], profile.script) or 0.0) < RIGHT_SCRIPT
            and bool(record["hypothesis"].strip())
        ),
    }
    for metric, test in tests.items():
        found = {record["item"]: float(test(record)) for record in records}
        hits = int(sum(found.values()))
        yield Measured(
            metric,
            hits / len(records),
            len(records),
            wilson(hits, len(records)),
            scores=ItemScores(found, "right"),
        )


def _sides(item: TranslationItem, options: TranslationOptions) -> tuple[str, str]:
    return (item.source, item.target) if options.direction == "forward" else (item.target, item.source)


def _instruction(options: TranslationOptions) -> str:
    names = {key: language_name(getattr(options, key)) for key in ("source", "target")}
    return options.instruction.replace("{source}", names["source"]).replace("{target}", names["target"])


def _translate(context: TaskContext, source: str) -> str:
    """In the trained prompt; by examples alone where the model has none."""
    options: TranslationOptions = context.options
    chat, progress = context.model.chat_model(), context.model.on_progress
    if chat is not None and not context.examples:
        prompt = f"{_instruction(options)}\n{source}"
        return chat.sample(prompt, max_new_tokens=options.max_new_tokens, on_piece=progress).strip()
    from persianmind.evaluate.generate import stream_ids

    tokenizer = context.model.tokenizer
    names = [language_name(one) for one in (options.source, options.target)]
    shown = []
    for example in context.examples:
        assert isinstance(example, TranslationItem)
        first, second = _sides(example, options)
        shown.append(f"{names[0]}: {first}\n{names[1]}: {second}\n\n")
    prompt = f"{''.join(shown)}{names[0]}: {source}\n{names[1]}:"
    lead = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = [*lead, *tokenizer.encode([prompt], parse_special=True)[0]]
    found: list[int] = []
    for token in stream_ids(
        context.model.causal_lm,
        ids[-context.model.window :],
        max_new_tokens=options.max_new_tokens,
        stop_ids={tokenizer.eos_id},
        vocab_size=tokenizer.vocab_size,
    ):
        progress()
        found.append(token)
        if "\n" in tokenizer.decode(found).lstrip():
            break
    return tokenizer.decode(found, skip_special=True).strip().split("\n", 1)[0].strip()


def _pieces(model_file: str) -> Callable[[str], str]:
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=model_file)
    except (OSError, RuntimeError) as error:
        raise DataError(f"options.spm {model_file} is no SentencePiece model: {error}") from None
    return lambda text: " ".join(processor.encode(text, out_type=str))
