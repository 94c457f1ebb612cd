"""Rows to clean documents: held-out split, normalised, judged. What the vocabulary and the packer are fed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from persianmind.common.errors import EmptyCorpusError
from persianmind.recipe import Recipe
from persianmind.text.dedup import FingerprintSet, text_fingerprint
from persianmind.text.dialogue import Message, parse_dialogue
from persianmind.text.filters import judge
from persianmind.text.quarantine import Quarantine
from persianmind.text.record import Record, is_held_out
from persianmind.text.stream import stream_records


@dataclass(frozen=True, slots=True)
class Document:
    """One clean text."""

    key: str
    place: str
    text: str

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One clean instruction row."""

    key: str
    place: str
    messages: tuple[Message, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(message.content for message in self.messages)


@dataclass(frozen=True, slots=True)
class Taken:
    """A row that a quality filter took."""

    place: str
    reason: str
    sample: str


class Cleaner:
    """Normalises and judges the rows of one source. Stateless and cheap to send to a worker process."""

    def __init__(self, recipe: Recipe, source_name: str) -> None:
        self.recipe = recipe
        self.source = recipe.sources[source_name]

    def is_held_out(self, key: str) -> bool:
        """Whether the document stays out of all training, the vocabulary included.

        Keys are shared by sources (a poem and its interpretation), so the split holds for every source as
        soon as the recipe evaluates anything held out.
        """
        heldout = self.recipe.heldout
        return bool(heldout.sources) and is_held_out(key, seed=self.recipe.seed, ratio=heldout.ratio)

    def clean(self, row: Record) -> Document | Dialogue | Taken:
        """One row of this source, normalised; or what took it."""
        document = self._normalised(row)
        text = "\n".join(document.texts)
        dialogue = isinstance(document, Dialogue)
        raw = None if dialogue else row.fields[self.source.text_field]
        quality, language = self.recipe.quality, self.source.language
        reason = judge(text, quality, language, raw=raw, dialogue=dialogue)
        if reason is None and not all(part.strip() for part in document.texts):
            reason = "empty_when_normalised"
        return document if reason is None else Taken(row.place, reason, text[:160])

    def _normalised(self, row: Record) -> Document | Dialogue:
        from persianmind.language.persian import normalise

        options = self.recipe.normalise
        if self.source.kind == "text":
            text = normalise(row.fields[self.source.text_field], options)
            return Document(row.key, row.place, text)
        messages = parse_dialogue(row.fields)
        turns = tuple(Message(m.role, normalise(m.content, options).strip()) for m in messages)
        return Dialogue(row.key, row.place, turns)


def training_documents(
    recipe: Recipe, source_name: str, quarantine: Quarantine | None = None
) -> Iterator[Document | Dialogue]:
    """The clean documents of one source's training split, exact duplicates left out, in reading order."""
    cleaner = Cleaner(recipe, source_name)
    quality = recipe.quality
    evaluated = evaluated_fingerprints(recipe)
    seen = FingerprintSet()
    for row in stream_records(source_name, cleaner.source, quarantine):
        if cleaner.is_held_out(row.key):
            continue
        document = cleaner.clean(row)
        if isinstance(document, Taken):
            continue
        fingerprint = text_fingerprint(*document.texts)
        if fingerprint in evaluated:
            continue
        if quality.enabled and quality.exact_duplicates and not seen.add(fingerprint):
            continue
        yield document


def training_texts(recipe: Recipe, source_names: Sequence[str]) -> Iterator[str]:
    """The texts of the training split of several sources: what the vocabulary is trained on.

    Instruction rows give each of their turns. Held-out documents are not among them.
    """
    for source_name in source_names:
        for document in training_documents(recipe, source_name):
            yield from document.texts


def check_usable(recipe: Recipe, source_names: Sequence[str]) -> None:
    """Reads each source up to its first usable document: an empty corpus is found before anything is written.

    Raises:
        EmptyCorpusError: a source has none; the message counts what was read.
    """
    for source_name in source_names:
        cleaner, counts = Cleaner(recipe, source_name), Quarantine()
        rows = stream_records(source_name, cleaner.source, counts)
        if not any(not isinstance(cleaner.clean(row), Taken) for row in rows):
            raise EmptyCorpusError(
                f"sources.{source_name} has no usable row ({counts.seen} read, {counts.total_rejected} of "
                "them damaged); check its uri, its text_field and the limits under `quality`"
            )


def check_held_out(recipe: Recipe) -> None:
    """Something is held out of every language that the recipe evaluates.

    Raises:
        EmptyCorpusError: no document of a language fell into the split.
    """
    for language in dict.fromkeys(recipe.sources[name].language for name in recipe.heldout.sources):
        if next(held_out_texts(recipe, language), None) is None:
            raise EmptyCorpusError(
                f"no document of language {language!r} fell into the held-out split; raise heldout.ratio="
                f"{recipe.heldout.ratio:g} or add sources to heldout.sources"
            )


def held_out_texts(recipe: Recipe, language: str) -> Iterator[tuple[str, str]]:
    """(key, text) of the held-out documents of one language, from `heldout.sources`, in reading order.

    Ends once `heldout.max_characters` are reached; the last text is given whole.
    """
    for document in _held_out_documents(recipe, language):
        yield document.key, "\n".join(document.texts)


def evaluated_fingerprints(recipe: Recipe) -> frozenset[int]:
    """Fingerprints of all texts that `held_out_texts` gives, in every language.

    A training document with one of them is the same text under another key: it must not be trained on. Costs
    reading `heldout.sources` until enough held-out text is found, once for each recipe.
    """
    if not recipe.heldout.sources:
        return frozenset()
    key = recipe.model_dump_json(include={"heldout", "sources", "normalise", "quality", "seed"})
    if key not in _evaluated:
        languages = {recipe.sources[name].language for name in recipe.heldout.sources}
        _evaluated[key] = frozenset(
            text_fingerprint(*document.texts)
            for language in sorted(languages)
            for document in _held_out_documents(recipe, language)
        )
    return _evaluated[key]


_evaluated: dict[str, frozenset[int]] = {}


def _held_out_documents(recipe: Recipe, language: str) -> Iterator[Document | Dialogue]:
    characters = 0
    for source_name in recipe.heldout.sources:
        cleaner = Cleaner(recipe, source_name)
        if cleaner.source.language != language:
            continue
        for row in stream_records(source_name, cleaner.source):
            if not cleaner.is_held_out(row.key):
                continue
            document = cleaner.clean(row)
            if isinstance(document, Taken):
                continue
            yield document
            characters += sum(map(len, document.texts))
            if characters >= recipe.heldout.max_characters:
                return
