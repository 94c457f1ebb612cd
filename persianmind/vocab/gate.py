"""The exactness gate: what must hold before an expanded tokenizer is saved. Each check has its own error."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from persianmind.common.errors import ExactnessError
from persianmind.language import LanguageProfile
from persianmind.vocab.expansion import Gate, VocabPiece
from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.families.reader import JsonReader
from persianmind.vocab.foreign import english_prose, foreign_samples

_MAX_JOINED_WORDS = 20_000
_MAX_DIFFERING = 0.01
# "@" is the token: at either end, doubled, with spaces and line ends about it, cutting a word.
_BESIDE_SPECIAL = ("@Hello, world@", "user@\nHow are you? @@ 2 + 2@ = 4.\n", " @  def f(x):\n    return x@x")


class HFTokenizer(JsonReader):
    """The expanded tokenizer as its users load it: AutoTokenizer on the folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.size = len(loaded)
        super().__init__(loaded.backend_tokenizer, folder)


def check_exactness(
    base: BaseTokenizer,
    tokenizer: HFTokenizer,
    reference: BaseTokenizer,
    pieces: Sequence[VocabPiece],
    *,
    pad: bool,
    documents: Sequence[str],
    records: Sequence[int] = (),
    profile: LanguageProfile,
) -> Gate:
    """Runs every check on an expanded tokenizer against its base.

    Args:
        base: the tokenizer it was made from.
        tokenizer: the expanded one, as its users load it.
        reference: its files as SentencePiece (or the same library) reads them.
        pieces: the new pieces, without the pad token.
        pad: whether a pad token comes after them.
        documents: normalised training documents to try.
        records: which record of the text each of them is, for messages.
        profile: the language of the new pieces.

    Returns:
        How much was looked at.

    Raises:
        ExactnessError: the first check that fails, with an example.
    """
    _check_ids(base, tokenizer, reference, pieces, pad)
    _check_boundaries(pieces, profile)
    _check_reachable(reference, pieces)
    script = profile.script
    found = {word for document in documents for word in script.joined_word.findall(document)}
    joined_words = [*profile.probes.joined_words, *sorted(found)[:_MAX_JOINED_WORDS]]
    foreign = [text for text in foreign_samples() if not script.character.search(text)]
    own = [*documents, *profile.probes.spaces]
    record_of = dict(zip(documents, records, strict=False))
    if base.is_independent:
        _check_base_agrees(base)
        _check_foreign(base.encode(foreign), reference.encode(foreign), foreign, profile)
    _check_foreign(base.reader.encode(foreign), tokenizer.encode(foreign), foreign, profile)
    _check_special(base, tokenizer)
    _check_round_trip(base, tokenizer, joined_words, record_of, profile)
    _check_round_trip(base, tokenizer, own, record_of, profile)
    if reference.is_independent:
        _check_equals_reference(base, tokenizer, reference, [*own, *joined_words, *foreign], record_of)
    return Gate(len(documents), len(foreign), len(pieces), len(joined_words))


def _check_ids(
    base: BaseTokenizer,
    tokenizer: HFTokenizer,
    reference: BaseTokenizer,
    pieces: Sequence[VocabPiece],
    pad: bool,
) -> None:
    expected = base.size + len(pieces) + pad
    if not tokenizer.size == reference.size == expected:
        raise ExactnessError(
            f"the expanded tokenizer has {tokenizer.size} ids (its files {reference.size}), {expected} were "
            "asked for"
        )
    if [piece.id for piece in pieces] != list(range(base.size, base.size + len(pieces))):
        raise ExactnessError(f"new ids do not follow the base's {base.size} without a gap")


def _check_boundaries(pieces: Iterable[VocabPiece], profile: LanguageProfile) -> None:
    for piece in pieces:
        if not piece.is_part and not profile.is_valid_piece(piece.text):
            raise ExactnessError(
                f"the new piece {piece.text!r} spans a word boundary or is not {profile.name}"
            )


def _check_reachable(reference: BaseTokenizer, pieces: Sequence[VocabPiece]) -> None:
    """Every piece is what the tokenizer gives for the piece's own text."""
    own = reference.token_bytes

    def ids(piece: VocabPiece) -> list[int]:
        return reference.byte_ids(own[piece.id]) if piece.is_part else reference.ids_of(piece.text)

    lost = [piece for piece in pieces if ids(piece) != [piece.id]]
    if lost:
        example = lost[0].text
        raise ExactnessError(
            f"{len(lost)} of {len(pieces)} new pieces can never be produced, e.g. {example!r}"
        )


def _check_base_agrees(base: BaseTokenizer) -> None:
    """Odd strings apart, a base's tokenizer.json and tokenizer.model must be one tokenizer."""
    prose = english_prose()
    pairs = zip(prose, base.encode(prose), base.reader.encode(prose), strict=True)
    differing = [text for text, model, json in pairs if model != json]
    if len(differing) > _MAX_DIFFERING * len(prose):
        raise ExactnessError(
            f"the base's tokenizer.json and tokenizer.model are two tokenizers: {len(differing)} of "
            f"{len(prose)} English sentences get different ids, e.g. {differing[0][:80]!r}; copy both again "
            "from one model"
        )


def _check_foreign(
    before: Sequence[list[int]], after: Sequence[list[int]], samples: Sequence[str], profile: LanguageProfile
) -> None:
    for text, old, new in zip(samples, before, after, strict=True):
        if old != new:
            raise ExactnessError(
                f"the expansion changes the ids of text that holds no {profile.name} letter: {text[:80]!r}"
            )


def _check_special(base: BaseTokenizer, tokenizer: JsonReader) -> None:
    """Text before, after and between special tokens, as chat templates write it."""
    tokens = base.reader.added()
    texts = [probe.replace("@", token) for token in tokens for probe in _BESIDE_SPECIAL]
    before = base.reader.encode(texts, parse_special=True)
    after = tokenizer.encode(texts, parse_special=True)
    for text, old, new in zip(texts, before, after, strict=True):
        if old != new:
            raise ExactnessError(f"the expansion changes the ids of text beside a special token: {text!r}")


def _check_round_trip(
    base: BaseTokenizer,
    tokenizer: JsonReader,
    texts: Sequence[str],
    record_of: Mapping[str, int],
    profile: LanguageProfile,
) -> None:
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        decoded = tokenizer.decode(ids)
        if decoded != text and not _base_loses_it_too(base, text, decoded, profile):
            place = _first_difference(text, decoded)
            raise ExactnessError(
                f"decode(encode(x)) differs from x{_in_record(text, record_of)} near {_near(text, place)!r}"
            )


def _base_loses_it_too(base: BaseTokenizer, text: str, decoded: str, profile: LanguageProfile) -> bool:
    """Whether the loss is the base's own and touches no character of the script.

    Such are a byte that the base lacks, its NFC of Latin text, and a first space that it takes for its own.
    """
    if decoded != base.reader.decode(base.reader.encode([text])[0]):
        return False
    own = profile.script.character
    return own.findall(unicodedata.normalize("NFC", text)) == own.findall(decoded)


def _check_equals_reference(
    base: BaseTokenizer,
    tokenizer: JsonReader,
    reference: BaseTokenizer,
    texts: Sequence[str],
    record_of: Mapping[str, int],
) -> None:
    for text, ours, theirs in zip(texts, tokenizer.encode(texts), reference.encode(texts), strict=True):
        if ours != theirs and not base.differs_itself(text):
            common = next(
                (i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0
            )
            place = len(tokenizer.decode(ours[:common]))
            raise ExactnessError(
                f"tokenizer.json and tokenizer.model give different ids{_in_record(text, record_of)} near "
                f"{_near(text, place)!r}"
            )


def _first_difference(text: str, other: str) -> int:
    differing = (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b)
    return next(differing, min(len(text), len(other)))


def _near(text: str, place: int) -> str:
    return text[max(0, place - 20) : place + 20]


def _in_record(text: str, record_of: Mapping[str, int]) -> str:
    record = record_of.get(text)
    return "" if record is None else f" in record {record:,} of the text"
