"""The order of samples: pure functions of (seed, epoch, number), O(1) in time and memory at any size.

A stage serves samples 0, 1, 2, ...; that number is the whole state. Nothing here knows ranks, workers or
restarts: rank r of w takes the samples i of each global batch with i mod w = r, from the same sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from persianmind.common.errors import DataError

ROUNDS = 8
MASK64 = (1 << 64) - 1


def mix64(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    value = (value + 0x9E3779B97F4A7C15) & MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK64
    return value ^ (value >> 31)


def permute(index: int, n: int, seed: int, epoch: int = 0) -> int:
    """The place of `index` in a keyed permutation of [0, n): a bijection for every (n, seed, epoch).

    A balanced Feistel network over the next power of four, walked until it falls inside [0, n) (Black and
    Rogaway 2002): at most four rounds through it are expected.

    Raises:
        ValueError: `index` lies outside [0, n).
    """
    if not 0 <= index < n:
        raise ValueError(f"index {index} lies outside [0, {n})")
    half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
    half_mask = (1 << half_bits) - 1
    keys = _round_keys(seed, epoch)
    while True:
        left, right = index >> half_bits, index & half_mask
        for key in keys:
            left, right = right, left ^ (mix64(right ^ key) & half_mask)
        index = (left << half_bits) | right
        if index < n:
            return index


@lru_cache(maxsize=4096)
def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    state = mix64(mix64(seed & MASK64) ^ (seed >> 64)) ^ mix64(~epoch & MASK64)
    keys = []
    for _ in range(ROUNDS):
        state = mix64(state)
        keys.append(state)
    return tuple(keys)


def locate_sequence(
    index: int, n: int | None, seed: int, epoch: int, block_sequences: int | None = None
) -> int:
    """The sequence that is served at place `index` of an epoch over `n` sequences.

    n: None while it is not known yet; then `index` lies in a block that has all of its `block_sequences`
    sequences.
    block_sequences: sequences are permuted within consecutive blocks of this size, so that the order of a
        whole block does not depend on how many sequences come after it; None permutes all n.

    Raises:
        ValueError: neither `n` nor `block_sequences` is known, or `index` lies outside [0, n).
    """
    if block_sequences is None:
        if n is None:
            raise ValueError("without blocks an order needs the number of sequences")
        return permute(index, n, seed, epoch)
    block = index // block_sequences
    first = block * block_sequences
    size = block_sequences if n is None else min(block_sequences, n - first)
    return first + permute(index - first, size, mix64(seed ^ mix64(block)), epoch)


def window_counts(ratios: Mapping[str, float], window: int) -> dict[str, int]:
    """Samples of each source in every window: whole numbers that add up to `window`, by largest remainder.

    Raises:
        DataError: a source would never be served; the message gives a window that is large enough.
    """
    total = sum(ratios.values())
    exact = {name: window * ratio / total for name, ratio in ratios.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: window - sum(counts.values())]:
        counts[name] += 1
    for name, count in counts.items():
        if count == 0:
            enough = int(total / ratios[name]) + 1
            raise DataError(
                f"source {name!r} has a ratio of {ratios[name] / total:.2g}, less than one sample in a "
                f"window of {window}; set data.mixture_window={enough} or raise its weight"
            )
    return counts


def mixture_ratios(
    weights: Mapping[str, float], sequences_by_source: Mapping[str, int | None], temperature: float | None
) -> dict[str, float]:
    """Ratios that add up to 1: by weight, or by weight x sequences^(1/temperature).

    Raises:
        ValueError: a temperature is given and the sequences of a source are not known yet.
    """
    raw = dict(weights)
    if temperature is not None:
        for name, weight in weights.items():
            sequences = sequences_by_source[name]
            if sequences is None:
                raise ValueError(f"a temperature needs the sequences of {name!r}, which is still being built")
            raw[name] = weight * float(sequences ** (1 / temperature))
    total = sum(raw.values())
    return {name: value / total for name, value in raw.items()}


class Mixture:
    """Which sequence of which source is sample i. Ratios are exact in every window [k w, (k+1) w).

    Each source is served in epochs of its own: every sequence once before any sequence again. The number of
    sequences of a source may be None, not known yet: then only those of whole blocks of its first epoch can
    be located.

    Raises:
        DataError: a source without sequences, or one too rare for the window.
    """

    def __init__(
        self,
        sequences_by_source: Mapping[str, int | None],
        weights: Mapping[str, float],
        window: int,
        seed: int,
        *,
        block_sequences: int | None = None,
    ) -> None:
        for name in weights:
            sequences = sequences_by_source[name]
            if sequences is not None and sequences < 1:
                raise DataError(f"source {name!r} has no sequences; take it out of the stage or give it text")
        self.sequences_by_source = {name: sequences_by_source[name] for name in weights}
        self.window = window
        self.seed = seed
        self.block_sequences = block_sequences
        self.counts = window_counts(weights, window)
        self._slots = [name for name, count in self.counts.items() for _ in range(count)]
        self._layouts: dict[int, list[tuple[str, int]]] = {}
        self._seeds = {name: _seed_of(seed, name) for name in weights}

    def sample_to_source(self, sample: int) -> tuple[str, int]:
        """(source, running number of the sample within its source)."""
        window_number, slot = divmod(sample, self.window)
        name, place = self._layout(window_number)[slot]
        return name, window_number * self.counts[name] + place

    def _layout(self, window_number: int) -> list[tuple[str, int]]:
        """(source, how many samples of it stand before) at each slot of one window.

        Costs O(window) once per window; counting in the order of slots is what keeps epochs from overlapping.
        """
        layout = self._layouts.get(window_number)
        if layout is None:  # by `get`: another thread may empty the table at any moment
            before = dict.fromkeys(self.counts, 0)
            layout = []
            for slot in range(self.window):
                name = self._slots[permute(slot, self.window, self.seed, window_number)]
                layout.append((name, before[name]))
                before[name] += 1
            if len(self._layouts) >= 8:
                self._layouts.clear()
            self._layouts[window_number] = layout
        return layout

    def locate(self, sample: int) -> tuple[str, int]:
        """(source, sequence) of sample number `sample` (0, 1, 2, ... without end)."""
        name, number = self.sample_to_source(sample)
        return name, self.source_to_sequence(name, number, self.sequences_by_source[name])

    def source_to_sequence(self, name: str, number: int, sequences: int | None) -> int:
        """The sequence served as running number `number` of a source of `sequences` sequences (None: see the
        class)."""
        epoch, index = (0, number) if sequences is None else divmod(number, sequences)
        return locate_sequence(index, sequences, self._seeds[name], epoch, self.block_sequences)


def _seed_of(seed: int, name: str) -> int:
    """A seed for one source; its own name is mixed in, so that adding a source leaves the others alone."""
    for byte in name.encode("utf-8"):
        seed = mix64(seed ^ byte)
    return seed


def rank_samples(first: int, global_batch_size: int, rank: int, world: int) -> range:
    """Samples of one rank in the global batch that starts at sample `first`: every `world`-th from its own.

    Where `world` does not divide the batch the first ranks have one more; empty where there are fewer samples
    than ranks. The union over ranks, and the order once merged, is the same for every world.
    """
    return range(first + rank, first + global_batch_size, world)
