"""The exactness gate: what must hold before an expanded tokenizer is saved. Each check has its own error."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from persianmind.common.errors import ExactnessError
from persianmind.language import LanguageProfile, default_profile
from persianmind.vocab.expansion import Gate, VocabPiece
from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.foreign import foreign_samples

_MAX_JOINED_WORDS = 20_000


class HFTokenizer:
    """The expanded tokenizer as its users load it: AutoTokenizer on the folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.size = len(loaded)
        self._backend: Any = loaded.backend_tokenizer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        batch = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are kept."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))


def check_exactness(
    base: BaseTokenizer,
    tokenizer: HFTokenizer,
    reference: BaseTokenizer,
    pieces: Sequence[VocabPiece],
    *,
    pad: bool,
    documents: Sequence[str],
    profile: LanguageProfile = default_profile(),
) -> Gate:
    """Runs every check on an expanded tokenizer against its base.

    Args:
        base: the tokenizer it was made from.
        tokenizer: the expanded one, as its users load it.
        reference: its files as SentencePiece (or the same library) reads them.
        pieces: the new pieces, without the pad token.
        pad: whether a pad token comes after them.
        documents: normalised training documents to try.
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
    _check_foreign(base, tokenizer, foreign, profile)
    _check_round_trip(base, tokenizer, joined_words, profile)
    _check_round_trip(base, tokenizer, own, profile)
    if reference.is_independent:
        _check_equals_reference(tokenizer, reference, [*own, *joined_words, *foreign])
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
        if not profile.is_valid_piece(piece.text):
            raise ExactnessError(
                f"the new piece {piece.text!r} spans a word boundary or is not {profile.name}"
            )


def _check_reachable(reference: BaseTokenizer, pieces: Sequence[VocabPiece]) -> None:
    """Every piece is what the tokenizer gives for the piece's own text."""
    lost = [piece for piece in pieces if reference.ids_of(piece.text) != [piece.id]]
    if lost:
        example = lost[0].text
        raise ExactnessError(
            f"{len(lost)} of {len(pieces)} new pieces can never be produced, e.g. {example!r}"
        )


def _check_foreign(
    base: BaseTokenizer, tokenizer: HFTokenizer, samples: Sequence[str], profile: LanguageProfile
) -> None:
    for text, before, after in zip(samples, base.encode(samples), tokenizer.encode(samples), strict=True):
        if before != after:
            raise ExactnessError(f"the expansion changes the ids of non-{profile.name} text: {text[:80]!r}")


def _check_round_trip(
    base: BaseTokenizer, tokenizer: HFTokenizer, texts: Sequence[str], profile: LanguageProfile
) -> None:
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        decoded = tokenizer.decode(ids)
        if decoded != text and not _base_loses_it_too(base, text, decoded, profile):
            differing = (i for i, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b)
            position = next(differing, len(text))
            near = text[max(0, position - 20) : position + 20]
            raise ExactnessError(f"decode(encode(x)) differs from x near {near!r}")


def _base_loses_it_too(base: BaseTokenizer, text: str, decoded: str, profile: LanguageProfile) -> bool:
    """Whether the loss is the base's own and touches no character of the script.

    Such are a byte that the base lacks, and its NFC of Latin text.
    """
    if decoded != base.decode(base.encode([text])[0]):
        return False
    own = profile.script.character
    return own.findall(unicodedata.normalize("NFC", text)) == own.findall(decoded)


def _check_equals_reference(tokenizer: HFTokenizer, reference: BaseTokenizer, texts: Sequence[str]) -> None:
    for text, ours, theirs in zip(texts, tokenizer.encode(texts), reference.encode(texts), strict=True):
        if ours != theirs:
            raise ExactnessError(f"tokenizer.json and tokenizer.model give different ids for {text[:80]!r}")
