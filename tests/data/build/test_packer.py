"""Best-fit packing: whole pieces, each once, sequences nearly full, and the same after a cut anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.data.build.packer import BestFitPacker, pack_in_order

Named = tuple[int, ...]  # a piece: its number repeated as often as it is long


def _pieces(lengths: list[int]) -> list[Named]:
    return [(number,) * length for number, length in enumerate(lengths)]


def _pack(pieces: list[Named], seq_len: int, open_sequences: int) -> list[list[Named]]:
    packer: BestFitPacker[Named] = BestFitPacker(seq_len, open_sequences)
    sequences = []
    for piece in pieces:
        sequences.extend(packer.add(piece))
        assert len(packer.open_in_order()) <= open_sequences
    return sequences + packer.finish()


LENGTHS = st.lists(st.integers(1, 32), max_size=200)


@given(lengths=LENGTHS, open_sequences=st.integers(1, 9))
@settings(deadline=None)
def test_every_piece_is_in_exactly_one_sequence_whole(lengths: list[int], open_sequences: int) -> None:
    pieces = _pieces(lengths)
    sequences = _pack(pieces, 32, open_sequences)
    assert sorted(piece for sequence in sequences for piece in sequence) == sorted(pieces)
    assert all(sum(map(len, sequence)) <= 32 for sequence in sequences)
    assert all(sequences)


@given(lengths=LENGTHS, open_sequences=st.integers(1, 9), cut=st.integers(0, 200))
@settings(deadline=None)
def test_going_on_from_the_open_sequences_changes_nothing(
    lengths: list[int], open_sequences: int, cut: int
) -> None:
    pieces = _pieces(lengths)
    whole = _pack(pieces, 32, open_sequences)
    first: BestFitPacker[Named] = BestFitPacker(32, open_sequences)
    sequences = [sequence for piece in pieces[:cut] for sequence in first.add(piece)]
    second: BestFitPacker[Named] = BestFitPacker(32, open_sequences, first.open_in_order())
    sequences += [sequence for piece in pieces[cut:] for sequence in second.add(piece)]
    assert sequences + second.finish() == whole


def web_like_lengths(count: int, seq_len: int, seed: int = 0) -> list[int]:
    """Pieces of log-normal documents (median 330 tokens), cut at the sequence length as in a build."""
    lengths = np.random.default_rng(seed).lognormal(5.8, 1.1, count).astype(int).clip(1, 50_000)
    pieces = []
    for length in lengths.tolist():
        pieces += [seq_len] * (length // seq_len) + [length % seq_len] * bool(length % seq_len)
    return pieces


def _fill(sequences: list[list[Named]], seq_len: int) -> float:
    return sum(len(piece) for sequence in sequences for piece in sequence) / (len(sequences) * seq_len)


def test_fill_on_web_like_lengths() -> None:
    lengths = web_like_lengths(20_000, 2048)
    pieces = [range(length) for length in lengths]
    sequences = _pack(pieces, 2048, 64)  # type: ignore[arg-type]
    assert _fill(sequences, 2048) >= 0.994
    assert _fill(_pack(pieces, 2048, 1), 2048) < 0.9  # type: ignore[arg-type]  # control: next-fit


def test_piece_longer_than_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        list(BestFitPacker[Named](8, 2).add((1,) * 9))


@given(lengths=LENGTHS)
def test_packing_in_order_keeps_the_order_and_never_leaves_room_for_the_next(lengths: list[int]) -> None:
    pieces = _pieces(lengths)
    sequences = pack_in_order(pieces, 32)
    assert [piece for sequence in sequences for piece in sequence] == pieces
    sizes = [sum(map(len, sequence)) for sequence in sequences]
    assert all(size <= 32 for size in sizes)
    assert all(size + len(after[0]) > 32 for size, after in zip(sizes, sequences[1:], strict=False))
