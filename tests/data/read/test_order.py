"""The order of samples is a pure function of one integer: exact, and blind to ranks, restarts and size."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianmind.common.errors import DataError
from persianmind.data.read import order as order_module
from persianmind.data.read.order import (
    Mixture,
    locate_sequence,
    mix64,
    mixture_ratios,
    permute,
    rank_samples,
    window_counts,
)

SEEDS = st.integers(0, 2**63 - 1)


@given(n=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_permutation_is_a_bijection(n: int, seed: int, epoch: int) -> None:
    assert sorted(permute(i, n, seed, epoch) for i in range(n)) == list(range(n))


def test_epochs_and_seeds_give_different_orders() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(permute(i, 200, seed, epoch) for i in range(200))

    orders = {order(seed, epoch) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert tuple(range(200)) not in orders


@pytest.mark.parametrize("n", [2, 3, 5, 8, 13])
def test_every_place_is_equally_likely(n: int) -> None:
    """Chi-square of where index 0 lands over 4,000 keys, at most 5 standard deviations up."""
    for index in {0, n - 1}:
        counts = Counter(permute(index, n, seed, epoch) for seed in range(400) for epoch in range(10))
        expected = 4000 / n
        chi_square = sum((counts[i] - expected) ** 2 / expected for i in range(n))
        assert chi_square < (n - 1) + 5 * (2 * (n - 1)) ** 0.5, (index, counts)


def test_neighbours_are_scattered() -> None:
    """Of 10,000 neighbours hardly any stays a neighbour (2 are expected)."""
    places = [permute(i, 10_000, 7) for i in range(10_000)]
    assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(places)) < 12


def test_size_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of the mixer: as many for 10^15 sequences as for 2^12, but for the walk into [0, n)."""
    calls = 0

    def counted(value: int) -> int:
        nonlocal calls
        calls += 1
        return mix64(value)

    monkeypatch.setattr(order_module, "mix64", counted)
    used = []
    for n in (1 << 12, 10**15):
        calls = 0
        places = {permute(i * (n // 2000), n, 3) for i in range(2000)}
        assert len(places) == 2000 and max(places) < n
        used.append(calls)
    assert used[1] < 5 * used[0]  # not the 10^11 that anything linear would need


def test_index_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        permute(10, 10, 0)


WORLDS = (1, 2, 3, 4, 8)


def _mixture(**changes: object) -> Mixture:
    sequences = {"fa": 97, "en": 10, "verse": 31}
    weights = {"fa": 0.7, "en": 0.1, "verse": 0.2}
    return Mixture(sequences, weights, window=50, seed=11, **changes)  # type: ignore[arg-type]


def test_ratios_are_exact_in_every_window() -> None:
    mixture = _mixture()
    for window in range(40):
        sources = Counter(mixture.locate(i)[0] for i in range(50 * window, 50 * window + 50))
        assert sources == {"fa": 35, "en": 5, "verse": 10}


@pytest.mark.parametrize("block_sequences", [None, 7, 16])
def test_each_sequence_is_served_once_per_epoch(block_sequences: int | None) -> None:
    mixture = _mixture(block_sequences=block_sequences)
    served: dict[str, list[int]] = {"fa": [], "en": [], "verse": []}
    for sample in range(5000):
        source, sequence = mixture.locate(sample)
        served[source].append(sequence)
    for source, sequences in served.items():
        n = mixture.sequences_by_source[source]
        epochs = [sequences[i : i + n] for i in range(0, len(sequences) - n + 1, n)]
        assert len(epochs) >= 15
        for epoch in epochs:
            assert sorted(epoch) == list(range(n)), source
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs), "each epoch has its own order"


@pytest.mark.parametrize("world", WORLDS)
def test_order_does_not_depend_on_the_number_of_ranks(world: int) -> None:
    mixture, global_batch = _mixture(), 24
    alone = [mixture.locate(i) for i in range(20 * global_batch)]
    merged: dict[int, tuple[str, int]] = {}
    for step in range(20):
        for rank in range(world):
            samples = rank_samples(step * global_batch, global_batch, rank, world)
            assert len(samples) == global_batch // world
            assert all(i % world == rank for i in samples)
            merged |= {i: _mixture().locate(i) for i in samples}
    assert [merged[i] for i in sorted(merged)] == alone


def test_blocks_make_the_order_independent_of_sequences_that_come_later() -> None:
    def start(n: int, block_sequences: int | None) -> list[int]:
        return [locate_sequence(i, n, 5, 0, block_sequences) for i in range(64)]

    assert start(64, 32) == start(96, 32) == start(1000, 32)
    assert start(64, None) != start(96, None)  # what the blocks are for


@given(
    n=st.integers(1, 400),
    block_sequences=st.integers(1, 500),
    seed=SEEDS,
    epoch=st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_an_order_begun_before_the_number_of_sequences_is_known_is_the_one_with_it(
    n: int, block_sequences: int, seed: int, epoch: int
) -> None:
    whole = n // block_sequences * block_sequences
    known = [locate_sequence(i, n, seed, epoch, block_sequences) for i in range(n)]
    assert sorted(known) == list(range(n))
    assert known[:whole] == [locate_sequence(i, None, seed, epoch, block_sequences) for i in range(whole)]


def test_without_blocks_an_early_order_would_be_another_one() -> None:
    """The control: an order over the sequences known so far is not the beginning of the order over all of
    them."""
    early = [locate_sequence(i, 64, 5, 0) for i in range(64)]
    assert early != [locate_sequence(i, 1000, 5, 0) for i in range(64)]
    with pytest.raises(ValueError, match="needs the number of sequences"):
        locate_sequence(0, None, 5, 0)


def test_a_source_that_fits_one_block_is_ordered_as_that_block() -> None:
    """Block 0 has a key of its own also where it is the only one: it was served before that was known."""
    one_block = [locate_sequence(i, 40, 5, 0, 40) for i in range(40)]
    assert one_block == [locate_sequence(i, 1000, 5, 0, 40) for i in range(40)]
    assert one_block != [locate_sequence(i, 40, 5, 0) for i in range(40)]


def test_a_mixture_does_not_need_sequences_that_are_not_built() -> None:
    sequences, weights = {"fa": 97, "en": 50}, {"fa": 0.7, "en": 0.3}
    known = Mixture(sequences, weights, 10, 11, block_sequences=16)
    early = Mixture(dict.fromkeys(sequences), weights, 10, 11, block_sequences=16)
    assert [early.locate(i) for i in range(60)] == [known.locate(i) for i in range(60)]
    with pytest.raises(ValueError, match="still being built"):
        mixture_ratios(weights, {"fa": 97, "en": None}, 2.0)


@given(
    ratios=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3), st.floats(0.05, 10), min_size=1, max_size=5
    ),
    window=st.integers(1000, 2000),
)
def test_window_counts_add_up_and_are_near_the_ratios(ratios: dict[str, float], window: int) -> None:
    counts = window_counts(ratios, window)
    total = sum(ratios.values())
    assert sum(counts.values()) == window
    assert all(abs(counts[name] - window * ratio / total) < 1 for name, ratio in ratios.items())


def test_too_rare_a_source_names_a_window_that_is_enough() -> None:
    with pytest.raises(DataError, match="mixture_window=1001") as error:
        window_counts({"fa": 999.0, "en": 1.0}, 100)
    assert "'en'" in str(error.value)
    assert window_counts({"fa": 999.0, "en": 1.0}, 1001)["en"] == 1


def test_source_without_sequences_is_refused() -> None:
    with pytest.raises(DataError, match="no sequences"):
        Mixture({"fa": 0}, {"fa": 1.0}, 10, 0)


def test_temperature_flattens_sizes() -> None:
    sequences = {"fa": 10_000, "en": 100}
    weights = {"fa": 1.0, "en": 1.0}
    assert mixture_ratios(weights, sequences, None)["en"] == pytest.approx(0.5)
    assert mixture_ratios(weights, sequences, 1.0)["en"] == pytest.approx(100 / 10_100)
    assert mixture_ratios(weights, sequences, 2.0)["en"] == pytest.approx(10 / 110)


def test_adding_a_source_leaves_the_order_of_the_others() -> None:
    few = Mixture({"fa": 50}, {"fa": 1.0}, 10, 3)
    more = Mixture({"fa": 50, "en": 20}, {"fa": 0.5, "en": 0.5}, 10, 3)
    sequences = [sequence for source, sequence in map(more.locate, range(200)) if source == "fa"]
    epoch = sorted(sequences[:50])
    assert epoch == list(range(50))
    # the same places of the epoch hold the same sequences, whatever stands between them
    assert {locate_sequence(i, 50, more._seeds["fa"], 0) for i in range(10)} == {
        locate_sequence(i, 50, few._seeds["fa"], 0) for i in range(10)
    }
