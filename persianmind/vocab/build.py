"""Building an expanded tokenizer: count, learn, write, pass the gate, appear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from persianmind.common.atomic import atomic_dir, write_bytes, write_json
from persianmind.common.errors import EmptyCorpusError, VocabError
from persianmind.vocab.count import Sample, count_chunks
from persianmind.vocab.expansion import EXPANSION_FILE, Expansion, Fertility, Piece, fingerprint
from persianmind.vocab.families.base import PAD, Base, open_base
from persianmind.vocab.foreign import english_prose
from persianmind.vocab.gate import HFTokenizer, check
from persianmind.vocab.learn import Learned, continue_bpe
from persianmind.vocab.pieces import is_valid_piece

# The most frequent chunks are over 99% of any text's words; the rest cannot decide a merge.
MAX_CHUNKS = 500_000
# Ids that a SentencePiece vocabulary of M pieces spends before text: three control pieces, 256 bytes.
_META_PIECES = 259

Texts = Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Corpus:
    """What one pass over the text leaves: counted training units, a sample of documents, and the number of
    words (what white space separates) of all of it."""

    units: Mapping[str, int]
    rows: Sequence[str]
    words: int


def build_vocab(
    base: Path,
    texts: Texts,
    out: Path,
    *,
    new_tokens: int,
    train_size: int | None = None,
    pad_token: bool = False,
) -> Expansion:
    """Expands the tokenizer at `base` with pieces learned from `texts()` and writes the folder `out`.

    `out` is a Hugging Face tokenizer folder with expansion.json beside; it appears whole or not at all. The
    same text gives the same bytes, in whatever order it is read.

    Args:
        base: a Hugging Face folder, or a SentencePiece tokenizer.model.
        texts: gives normalised documents; called at most once.
        new_tokens: exactly so many new pieces; 0 keeps the base's ids as they are.
        train_size: instead, all new pieces of a BPE of that size (its 259 control and byte pieces
            included, as SentencePiece counts); those that the base makes unreachable are left out.
        pad_token: adds [PAD] as the last id.

    Raises:
        VocabError: a base of another kind, an `out` that exists, more pieces than the text supports.
        EmptyCorpusError: no Persian in the text.
        ExactnessError: the gate refused; nothing is saved.
    """
    if out.exists():
        raise VocabError(f"{out} exists; give another output folder or remove it first")
    opened = open_base(base)
    wanted = new_tokens > 0 or train_size is not None
    corpus = read_corpus(opened, texts) if wanted else Corpus({}, [], 0)
    learned, left_out = _learn(opened, corpus, new_tokens, train_size)
    pieces = describe(opened, learned)
    with atomic_dir(out) as folder:
        for name, content in sorted(opened.files(learned, pad_token=pad_token).items()):
            write_bytes(folder / name, content)
        fast = HFTokenizer(folder)
        gate = check(opened, fast, open_base(folder), pieces, pad=pad_token, rows=corpus.rows)
        pad_id = opened.size + len(pieces) if pad_token else None
        if pad_id is not None:
            pieces = (*pieces, Piece(pad_id, PAD, (), 0))
        expansion = Expansion(
            family=opened.family,
            base_vocab=opened.size,
            added=len(pieces),
            pieces=pieces,
            fertility=_fertilities(opened, fast, corpus.rows),
            gate=gate,
            fingerprint=fingerprint(folder),
            pad_id=pad_id,
            left_out=left_out,
        )
        write_json(folder / EXPANSION_FILE, expansion.to_json())
    return expansion


def read_corpus(base: Base, texts: Texts) -> Corpus:
    """One pass over the text.

    Raises:
        EmptyCorpusError: no Persian in it.
    """
    sample = Sample()
    chunks, words = count_chunks(texts(), sample, limit=MAX_CHUNKS)
    units = base.units(chunks)
    if not units:
        raise EmptyCorpusError("the text for the vocabulary holds no Persian word; give other text")
    return Corpus(units, sample.texts(), words)


def learn_exactly(base: Base, units: Mapping[str, int], new_tokens: int) -> Learned:
    """Exactly `new_tokens` new pieces.

    Raises:
        VocabError: the text supports fewer; the message says how many.
    """
    learned = continue_bpe(
        base.segment(units),
        base.token_bytes,
        first_id=base.size,
        limit=new_tokens,
        is_valid_piece=is_valid_piece,
    )
    if len(learned.pieces) < new_tokens:
        raise VocabError(
            f"the text supports {len(learned.pieces)} new pieces, {new_tokens} were asked for; "
            f"ask for at most {len(learned.pieces)}, or give more text"
        )
    return learned


def learn_like_paper(base: Base, units: Mapping[str, int], train_size: int) -> tuple[Learned, int]:
    """All new pieces of a BPE of `train_size`, and how many of them the base makes unreachable.

    Raises:
        VocabError: `train_size` leaves no room for pieces, or is more than the text supports.
    """
    wanted = _scratch_pieces(units, train_size)
    known = set(base.token_bytes.values())
    order = {surface: rank for rank, surface in enumerate(wanted) if surface not in known}
    learned = continue_bpe(
        base.segment(units),
        base.token_bytes,
        first_id=base.size,
        limit=len(order),
        is_valid_piece=is_valid_piece,
        order=order,
    )
    return learned, len(order) - len(learned.pieces)


def _learn(base: Base, corpus: Corpus, new_tokens: int, train_size: int | None) -> tuple[Learned, int]:
    if train_size is not None:
        return learn_like_paper(base, corpus.units, train_size)
    if new_tokens:
        return learn_exactly(base, corpus.units, new_tokens), 0
    return Learned(base.size, (), ()), 0


def _scratch_pieces(units: Mapping[str, int], train_size: int) -> list[bytes]:
    """Pieces of a BPE trained from single characters: the characters, then the merges in order."""
    characters: Counter[str] = Counter()
    for unit, count in units.items():
        for character in unit:
            characters[character] += count
    alphabet = sorted(characters, key=lambda c: (-characters[c], c))
    number_of = {character: number for number, character in enumerate(alphabet)}
    room = train_size - _META_PIECES - len(alphabet)
    if room < 1:
        raise VocabError(
            f"a BPE of {train_size} pieces has no room beside its {_META_PIECES} control and byte pieces and "
            f"the text's {len(alphabet)} characters; ask for more"
        )
    words: Counter[tuple[int, ...]] = Counter()
    for unit, count in units.items():
        words[tuple(number_of[character] for character in unit)] += count
    token_bytes = {number: character.encode("utf-8") for character, number in number_of.items()}
    learned = continue_bpe(
        words, token_bytes, first_id=len(alphabet), limit=room, is_valid_piece=is_valid_piece
    )
    if len(learned.pieces) < room:
        most = train_size - room + len(learned.pieces)
        raise VocabError(f"the text supports a BPE of {most} pieces, {train_size} were asked for")
    single = [token_bytes[number] for number in range(len(alphabet))]
    return [surface for surface in single if is_valid_piece(surface)] + [
        surface for surface, _ in learned.pieces
    ]


def describe(base: Base, learned: Learned) -> tuple[Piece, ...]:
    """The learned pieces with their base ids."""
    return tuple(
        Piece(learned.first_id + i, text, tuple(base.ids_of(text)), count)
        for i, (text, count) in enumerate((s.decode("utf-8"), count) for s, count in learned.pieces)
    )


def _fertilities(base: Base, fast: HFTokenizer, rows: Sequence[str]) -> dict[str, Fertility]:
    found = {"fa": _fertility(base, fast, rows), "en": _fertility(base, fast, english_prose())}
    return {language: fertility for language, fertility in found.items() if fertility.words}


def _fertility(base: Base, fast: HFTokenizer, rows: Sequence[str]) -> Fertility:
    words = sum(len(row.split()) for row in rows)
    if not words:
        return Fertility(0, 0.0, 0.0)
    before, after = (sum(map(len, encode(rows))) / words for encode in (base.encode, fast.encode))
    return Fertility(words, round(before, 4), round(after, 4))
