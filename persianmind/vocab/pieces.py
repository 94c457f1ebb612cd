"""Which pieces are learned: exactly N, or all that a BPE of a given size has and the base lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from persianmind.common.errors import VocabError
from persianmind.language import LanguageProfile
from persianmind.vocab.alphabet import with_alphabet
from persianmind.vocab.expansion import VocabPiece
from persianmind.vocab.families.base import BaseTokenizer
from persianmind.vocab.learn import Learned, continue_bpe

# Ids that a SentencePiece vocabulary of M pieces spends before text: three control pieces, 256 bytes.
_META_PIECES = 259


def is_valid_piece(profile: LanguageProfile, token_bytes: bytes) -> bool:
    """The profile's rule for UTF-8 bytes; a piece that ends inside a character is not valid."""
    try:
        return profile.is_valid_piece(token_bytes.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def _validity(base: BaseTokenizer, profile: LanguageProfile) -> Callable[[bytes], bool]:
    """Which bytes may be a piece. A byte-level base also joins the bytes of a character that it lacks, where
    they can begin no character of another script."""
    if not base.joins_bytes:
        return partial(is_valid_piece, profile)
    part = profile.script.is_part_of_character
    return lambda token_bytes: is_valid_piece(profile, token_bytes) or part(token_bytes)


def learn_exactly(
    base: BaseTokenizer, units: Mapping[str, int], new_tokens: int, profile: LanguageProfile
) -> Learned:
    """Learns exactly `new_tokens` new pieces.

    Args:
        base: the tokenizer to go on from.
        units: training units and how often each occurs.
        new_tokens: how many pieces.
        profile: says which pieces are valid.

    Raises:
        VocabError: the text supports fewer; the message says how many.
    """
    learned = learn_up_to(base, units, new_tokens, profile)
    found = len(learned.pieces)
    if not found or found < new_tokens:
        raise too_few_pieces(found, new_tokens, profile)
    return learned


def too_few_pieces(found: int, asked: int, profile: LanguageProfile) -> VocabError:
    """What to say where a text supports `found` new pieces and more were asked for."""
    if not found:
        return VocabError(
            f"the text supports no new piece: the base already has what its {profile.name} words are made "
            "of, or no pair of pieces occurs twice; give more text, or ask for 0 new tokens"
        )
    return VocabError(
        f"the text supports {found} new pieces, {asked} were asked for; ask for at most {found}, or "
        "give more text"
    )


def learn_up_to(
    base: BaseTokenizer, units: Mapping[str, int], limit: int, profile: LanguageProfile
) -> Learned:
    """Learns `limit` new pieces, or as many as the text supports: characters that pairs cannot make first."""
    is_valid = _validity(base, profile)
    return _continue(base, units, limit, is_valid)


def _continue(
    base: BaseTokenizer,
    units: Mapping[str, int],
    limit: int,
    is_valid: Callable[[bytes], bool],
    order: Mapping[bytes, int] | None = None,
) -> Learned:
    alphabet = with_alphabet(base, units, limit, is_valid, order)
    learned = continue_bpe(
        alphabet.words,
        alphabet.token_bytes,
        first_id=base.size + len(alphabet.pieces),
        limit=limit - len(alphabet.pieces),
        is_valid_piece=is_valid,
        order=order,
    )
    return Learned(base.size, (*alphabet.pieces, *learned.pieces), learned.merges)


def learn_like_paper(
    base: BaseTokenizer, units: Mapping[str, int], train_size: int, profile: LanguageProfile
) -> tuple[Learned, int]:
    """Learns all new pieces of a BPE of `train_size` pieces.

    Returns:
        What was learned, and how many pieces the base's merges make unreachable.

    Raises:
        VocabError: `train_size` leaves no space for pieces, or is more than the text supports.
    """
    is_valid = partial(is_valid_piece, profile)
    wanted = _scratch_pieces(units, train_size, is_valid)
    known = set(base.token_bytes.values())
    order = {piece: rank for rank, piece in enumerate(wanted) if piece not in known}
    learned = _continue(base, units, len(order), is_valid, order)
    return learned, len(order) - len(learned.pieces)


def _scratch_pieces(
    units: Mapping[str, int], train_size: int, is_valid: Callable[[bytes], bool]
) -> list[bytes]:
    """Pieces of a BPE trained from single characters: the characters, then the merges in order."""
    characters: Counter[str] = Counter()
    for unit, count in units.items():
        for character in unit:
            characters[character] += count
    alphabet = sorted(characters, key=lambda c: (-characters[c], c))
    id_of = {character: token_id for token_id, character in enumerate(alphabet)}
    merges = train_size - _META_PIECES - len(alphabet)
    if merges < 1:
        raise VocabError(
            f"a BPE of {train_size} pieces has no space beside its {_META_PIECES} control and byte pieces "
            f"and the text's {len(alphabet)} characters; ask for more"
        )
    words: Counter[tuple[int, ...]] = Counter()
    for unit, count in units.items():
        words[tuple(id_of[character] for character in unit)] += count
    token_bytes = {token_id: character.encode("utf-8") for character, token_id in id_of.items()}
    learned = continue_bpe(words, token_bytes, first_id=len(alphabet), limit=merges, is_valid_piece=is_valid)
    if len(learned.pieces) < merges:
        most = train_size - merges + len(learned.pieces)
        raise VocabError(f"the text supports a BPE of {most} pieces, {train_size} were asked for")
    single = [token_bytes[token_id] for token_id in range(len(alphabet))]
    return [piece for piece in single if is_valid(piece)] + [piece for piece, _ in learned.pieces]


def describe_pieces(base: BaseTokenizer, learned: Learned) -> tuple[VocabPiece, ...]:
    """The learned pieces with the base's ids of the same text."""
    return tuple(
        _describe(base, learned.first_id + i, token_bytes, count)
        for i, (token_bytes, count) in enumerate(learned.pieces)
    )


def _describe(base: BaseTokenizer, token_id: int, token_bytes: bytes, count: int) -> VocabPiece:
    try:
        text = token_bytes.decode("utf-8")
    except UnicodeDecodeError:
        byte_ids = tuple(base.byte_ids(token_bytes))
        return VocabPiece(token_id, token_bytes.decode("utf-8", "backslashreplace"), byte_ids, count, True)
    return VocabPiece(token_id, text, tuple(base.ids_of(text)), count)
