"""A record to a clean document: normalised, then judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from persianmind.language import LanguageProfile
from persianmind.recipe.text import Normalise
from persianmind.text.dialogue import Message, UntrainableDialogueError
from persianmind.text.filters import judge
from persianmind.text.parallel import pair_texts, translation_task
from persianmind.text.record import Dropped, Record
from persianmind.text.shapes import parse_dialogue
from persianmind.text.spec import SourceSpec

SAMPLE_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Document:
    """One clean text."""

    key: str
    place: str
    text: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Its one text."""
        return (self.text,)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One clean instruction record. left_out: see `ParsedDialogue`."""

    key: str
    place: str
    messages: tuple[Message, ...]
    left_out: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each turn."""
        return tuple(message.content for message in self.messages)


def clean_record(record: Record, spec: SourceSpec) -> Document | Dialogue | Dropped:
    """One record of this source, normalised; or what dropped it. Pure: the same on any worker."""
    try:
        document = _normalised(record, spec)
    except UntrainableDialogueError as error:
        return Dropped(record.place, str(error), repr(record.fields)[:SAMPLE_CHARACTERS])
    text = "\n".join(document.texts)
    dialogue = isinstance(document, Dialogue)
    raw = None if dialogue else record.fields[spec.source.text_field]
    reason = judge(text, spec.quality, spec.profile, raw=raw, dialogue=dialogue)
    if reason is None and not all(part.strip() for part in document.texts):
        reason = "empty_when_normalised"
    return document if reason is None else Dropped(record.place, reason, text[:SAMPLE_CHARACTERS])


def input_normaliser(profile: LanguageProfile, options: Normalise) -> Callable[[str], str]:
    """The spelling of what is typed to a model of this language: that of the dialogues it was trained on."""
    return lambda text: profile.normalise(text, options).strip()


def drop(document: Document | Dialogue, reason: str) -> Dropped:
    """What is told of a document that something else than its own quality dropped."""
    return Dropped(document.place, reason, document.texts[0][:SAMPLE_CHARACTERS])


def _normalised(record: Record, spec: SourceSpec) -> Document | Dialogue:
    profile = spec.profile
    if spec.source.kind == "text":
        text = profile.normalise(record.fields[spec.source.text_field], spec.normalise)
        return Document(record.key, record.place, text)
    if spec.source.kind == "parallel":
        codes = spec.source.languages
        pair = zip(codes, pair_texts(record.fields, spec.source), strict=True)
        texts = [_turn(spec.profile_of(code), text, spec.normalise) for code, text in pair]
        return Dialogue(record.key, record.place, translation_task(texts, spec, record.part).messages)
    parsed = parse_dialogue(record.fields, spec.source.columns)
    turns = tuple(Message(m.role, _turn(profile, m.content, spec.normalise)) for m in parsed.messages)
    return Dialogue(record.key, record.place, turns, parsed.left_out)


def _turn(profile: LanguageProfile, text: str, options: Normalise) -> str:
    """A turn in one spelling; templates write none with space about it."""
    return profile.normalise(text, options).strip()
