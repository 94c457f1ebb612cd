"""Best-fit packing: whole pieces, each once, rows nearly full, and the same after a cut anywhere."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.data.packer import BestFitPacker

Named = tuple[int, ...]  # a piece: its number repeated as often as it is long


def _pieces(lengths: list[int]) -> list[Named]:
    return [(number,) * length for number, length in enumerate(lengths)]


def _pack(pieces: list[Named], row_length: int, open_rows: int) -> list[list[Named]]:
    packer: BestFitPacker[Named] = BestFitPacker(row_length, open_rows)
    rows = []
    for piece in pieces:
        rows.extend(packer.add(piece))
        assert len(packer.open_in_order()) <= open_rows
    return rows + packer.finish()


LENGTHS = st.lists(st.integers(1, 32), max_size=200)


@given(lengths=LENGTHS, open_rows=st.integers(1, 9))
@settings(deadline=None)
def test_every_piece_is_in_exactly_one_row_whole(lengths: list[int], open_rows: int) -> None:
    pieces = _pieces(lengths)
    rows = _pack(pieces, 32, open_rows)
    assert sorted(piece for row in rows for piece in row) == sorted(pieces)
    assert all(sum(map(len, row)) <= 32 for row in rows)
    assert all(rows)


@given(lengths=LENGTHS, open_rows=st.integers(1, 9), cut=st.integers(0, 200))
@settings(deadline=None)
def test_going_on_from_the_open_rows_changes_nothing(lengths: list[int], open_rows: int, cut: int) -> None:
    pieces = _pieces(lengths)
    whole = _pack(pieces, 32, open_rows)
    first: BestFitPacker[Named] = BestFitPacker(32, open_rows)
    rows = [row for piece in pieces[:cut] for row in first.add(piece)]
    second: BestFitPacker[Named] = BestFitPacker(32, open_rows, first.open_in_order())
    rows += [row for piece in pieces[cut:] for row in second.add(piece)]
    assert rows + second.finish() == whole


def web_like_lengths(count: int, row_length: int, seed: int = 0) -> list[int]:
    """Pieces of log-normal documents (median 330 tokens), cut at the row length as in a build."""
    lengths = np.random.default_rng(seed).lognormal(5.8, 1.1, count).astype(int).clip(1, 50_000)
    pieces = []
    for length in lengths.tolist():
        pieces += [row_length] * (length // row_length) + [length % row_length] * bool(length % row_length)
    return pieces


def _fill(rows: list[list[Named]], row_length: int) -> float:
    return sum(len(piece) for row in rows for piece in row) / (len(rows) * row_length)


def test_fill_on_web_like_lengths() -> None:
    lengths = web_like_lengths(20_000, 2048)
    pieces = [range(length) for length in lengths]
    rows = _pack(pieces, 2048, 64)  # type: ignore[arg-type]
    assert _fill(rows, 2048) >= 0.994
    assert _fill(_pack(pieces, 2048, 1), 2048) < 0.9  # type: ignore[arg-type]  # control: next-fit


def test_piece_longer_than_a_row_is_refused() -> None:
    import pytest

    with pytest.raises(ValueError, match="does not fit"):
        list(BestFitPacker[Named](8, 2).add((1,) * 9))
