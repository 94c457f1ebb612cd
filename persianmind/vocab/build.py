"""Building an expanded tokenizer: count, learn, write, pass the gate, appear."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from persianmind.common.atomic import atomic_dir, write_bytes
from persianmind.common.errors import EmptyCorpusError, VocabError
from persianmind.language import LanguageProfile
from persianmind.tokenizer import tokenizer_fingerprint
from persianmind.vocab.count import DocumentSample, count_chunks
from persianmind.vocab.expansion import Expansion, Fertility, VocabPiece, write_expansion
from persianmind.vocab.families import open_base
from persianmind.vocab.families.base import PAD, BaseTokenizer
from persianmind.vocab.foreign import english_prose
from persianmind.vocab.gate import HFTokenizer, check_exactness
from persianmind.vocab.learn import Learned
from persianmind.vocab.pieces import describe_pieces, learn_exactly, learn_like_paper

# The most frequent chunks are over 99% of any text's words; the rest cannot decide a merge.
MAX_CHUNKS = 500_000

Texts = Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Corpus:
    """What one pass over the text leaves.

    units: training units and how often each occurs. documents: a sample of them. words: the number of words
    (what white space separates) of all the text. records: which document of the text each of the sample is,
    from 1 in the order of reading.
    """

    units: Mapping[str, int]
    documents: Sequence[str]
    words: int
    records: Sequence[int] = ()


def build_vocab(
    base: Path,
    texts: Texts,
    out: Path,
    *,
    new_tokens: int,
    train_size: int | None = None,
    pad_token: bool = False,
    profile: LanguageProfile,
) -> Expansion:
    """Expands the tokenizer at `base` with pieces learned from `texts()` and writes the folder `out`.

    `out` is a Hugging Face tokenizer folder with expansion.json beside; it appears whole or not at all. The
    same text gives the same bytes, in whatever order it is read.

    Args:
        base: a Hugging Face folder, or a SentencePiece tokenizer.model.
        texts: gives normalised documents; called at most once.
        out: the folder to write; it must not exist.
        new_tokens: exactly N new pieces; 0 keeps the base's ids as they are.
        train_size: instead, all new pieces of a BPE of that size (its 259 control and byte pieces
            included, as SentencePiece counts); those that the base makes unreachable are left out.
        pad_token: adds [PAD] as the last id.
        profile: the language of the new pieces.

    Returns:
        What was added, as expansion.json has it.

    Raises:
        VocabError: a base of another kind, an `out` that exists, more pieces than the text supports.
        EmptyCorpusError: no word of the language in the text.
        ExactnessError: the gate refused; nothing is saved.
    """
    if out.exists():
        raise VocabError(f"{out} exists; give another output folder or remove it first")
    opened = open_base(base)
    wanted = new_tokens > 0 or train_size is not None
    corpus = read_corpus(opened, texts, profile) if wanted else Corpus({}, [], 0)
    learned, left_out = _learn(opened, corpus, new_tokens, train_size, profile)
    pieces = describe_pieces(opened, learned)
    with atomic_dir(out) as folder:
        for name, content in sorted(opened.files(learned, pad_token=pad_token).items()):
            write_bytes(folder / name, content)
        tokenizer = HFTokenizer(folder)
        gate = check_exactness(
            opened,
            tokenizer,
            open_base(folder),
            pieces,
            pad=pad_token,
            documents=corpus.documents,
            records=corpus.records,
            profile=profile,
        )
        pad_id = opened.size + len(pieces) if pad_token else None
        if pad_id is not None:
            pieces = (*pieces, VocabPiece(pad_id, PAD, (), 0))
        expansion = Expansion(
            family=opened.family,
            base_vocab=opened.size,
            added=len(pieces),
            pieces=pieces,
            fertility=_fertilities(opened, tokenizer, corpus.documents, profile),
            gate=gate,
            fingerprint=tokenizer_fingerprint(folder),
            pad_id=pad_id,
            left_out=left_out,
        )
        write_expansion(folder, expansion)
    return expansion


def read_corpus(base: BaseTokenizer, texts: Texts, profile: LanguageProfile) -> Corpus:
    """Reads the text once.

    Raises:
        EmptyCorpusError: no word of the profile's language in it.
    """
    sample = DocumentSample()
    chunks, words = count_chunks(texts(), sample, profile.script, limit=MAX_CHUNKS)
    units = base.units(chunks, profile.script)
    if not units:
        if "A-Z" in profile.script.shared:
            raise EmptyCorpusError(
                f"the text for the vocabulary holds no {profile.name} letter outside ASCII, and only pieces "
                "with one are added; ask for 0 new tokens, or name the language that it is in"
            )
        raise EmptyCorpusError(
            f"the text for the vocabulary holds no {profile.name} word; give other text, or name the "
            "language that it is in"
        )
    return Corpus(units, sample.texts(), words, sample.records())


def _learn(
    base: BaseTokenizer,
    corpus: Corpus,
    new_tokens: int,
    train_size: int | None,
    profile: LanguageProfile,
) -> tuple[Learned, int]:
    """What was learned, and how many pieces were left out as unreachable."""
    if train_size is not None:
        return learn_like_paper(base, corpus.units, train_size, profile)
    if new_tokens:
        return learn_exactly(base, corpus.units, new_tokens, profile), 0
    return Learned(base.size, (), ()), 0


def _fertilities(
    base: BaseTokenizer, expanded: HFTokenizer, documents: Sequence[str], profile: LanguageProfile
) -> dict[str, Fertility]:
    found = {
        profile.code: _fertility(base, expanded, documents),
        "en": _fertility(base, expanded, english_prose()),
    }
    return {language: fertility for language, fertility in found.items() if fertility.words}


def _fertility(base: BaseTokenizer, expanded: HFTokenizer, documents: Sequence[str]) -> Fertility:
    words = sum(len(document.split()) for document in documents)
    if not words:
        return Fertility(0, 0.0, 0.0)
    before, after = (sum(map(len, encode(documents))) / words for encode in (base.encode, expanded.encode))
    return Fertility(words, round(before, 4), round(after, 4))
