"""Whether a recipe fits, the largest that would, and the nearest ones that do where it does not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from persianmind.estimate.planner import Estimate, Planner, with_seq_len, with_values
from persianmind.model.families import check_family
from persianmind.recipe import Recipe

SEQ_LEN_UNIT = 256
LONGEST = 32_768  # that is looked for: packed documents are shorter
SHORTEST = 512
SUGGESTIONS = 3
MOST_TRIED = 16
Changes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Largest:
    """What would fit with everything else as it is; 0: nothing. micro_batch_size: at most the sequences that
    a rank has in a step. seq_len: of all stages, in units of 256, at most what the base allows and 32,768."""

    micro_batch_size: int
    seq_len: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A recipe that fits. overrides: key=value, to paste after the recipe's name. time_ratio: its hours over
    those of the recipe that does not fit."""

    overrides: tuple[str, ...]
    time_ratio: float
    hours: float
    peak_bytes: int
    headroom_bytes: int


def largest_that_fit(planner: Planner, estimate: Estimate) -> Largest:
    """By more traces beside the one that there is."""
    recipe = estimate.asked
    per_rank = math.ceil(recipe.train.global_batch_size / planner.ranks)
    allowed = min(LONGEST, int(planner.config.get("max_position_embeddings") or LONGEST))

    def with_size(size: int) -> int:
        return planner.headroom(with_values(recipe, {"train.micro_batch_size": size}))

    def with_length(length: int) -> int:
        return planner.headroom(with_seq_len(recipe, length))

    return Largest(
        largest_multiple(with_size, 1, per_rank, estimate.sequences),
        largest_multiple(with_length, SEQ_LEN_UNIT, allowed, recipe.longest_seq_len),
    )


def largest_multiple(headroom: Callable[[int], int], unit: int, limit: int, start: int | None = None) -> int:
    """The largest multiple of `unit` up to `limit` that leaves headroom. 0 where not even the unit does.

    Memory is the highest of several moments, each of which grows along a line, more or less: a line through
    two small sizes, fast to trace, meets 0 headroom at that size or beyond it. From there each guess
    follows the line between the largest known to fit and the smallest known not to.

    Args:
        start: a size to begin with; None: `unit`.
    """
    most = limit // unit * unit
    low = max(unit, min(start or unit, most) // unit * unit)
    if most < unit or ((spare := headroom(low)) < 0 and (low == unit or headroom(unit) < 0)):
        return 0
    if spare < 0:
        return _between(headroom, unit, (unit, headroom(unit)), (low, spare))
    second, step = min(2 * low, most), unit
    if second == low or (missing := headroom(second)) >= 0:
        if second == most:
            return most
        slope = max((spare - missing) / (second - low), 1e-9)
        low, spare = second, missing
        high = min(most, max(int(low + spare / slope) // unit * unit, low + unit))
        while (missing := headroom(high)) >= 0:
            if high == most:
                return most
            low, spare, high, step = high, missing, min(most, high + step), 2 * step
        second = high
    return _between(headroom, unit, (low, spare), (second, missing))


def _between(
    headroom: Callable[[int], int], unit: int, fits: tuple[int, int], does_not: tuple[int, int]
) -> int:
    """(size, headroom) each: the largest multiple from the one on, below the other."""
    (low, spare), (high, missing) = fits, does_not
    while high - low > unit:
        guess = (low + (high - low) * spare // (spare - missing)) // unit * unit
        guess = min(max(guess, low + unit), high - unit)
        if (left := headroom(guess)) < 0:
            high, missing = guess, left
        else:
            low, spare = guess, left
    return low


def suggestions(planner: Planner, estimate: Estimate) -> list[Suggestion]:
    """The nearest recipes that fit; none where nothing here helps. First those that change different things,
    then those that change more than is needed."""
    tried = list(itertools.islice(_promising(planner, estimate.asked), MOST_TRIED))
    found: list[Changes] = []
    for more_of_the_same in (False, True):
        for changes in tried:
            repeats = any(earlier.keys() <= changes.keys() for earlier in found)
            if len(found) < SUGGESTIONS and changes not in found and repeats == more_of_the_same:
                variant = with_values(estimate.asked, changes)
                if planner.headroom(variant) >= 0:
                    found.append(changes)
    hours = planner.forecast(estimate).hours
    return [_suggestion(planner, estimate.asked, changes, hours) for changes in found]


def _suggestion(planner: Planner, recipe: Recipe, changes: Changes, hours: float) -> Suggestion:
    estimate = planner.estimate(with_values(recipe, changes))
    other = planner.forecast(estimate).hours
    return Suggestion(
        overrides=tuple(f"{place}={_as_yaml(value)}" for place, value in changes.items()),
        time_ratio=other / hours if hours else 1.0,
        hours=other,
        peak_bytes=estimate.peak.allocated,
        headroom_bytes=planner.spare(estimate),
    )


def _promising(planner: Planner, recipe: Recipe) -> Iterator[Changes]:
    """Changes, the nearest first, whose state alone leaves room."""
    for changes in _by_distance(planner, recipe):
        if planner.state(with_values(recipe, changes)).resident.total < planner.target.usable_bytes:
            yield changes


def _by_distance(planner: Planner, recipe: Recipe) -> list[Changes]:
    """All combinations, by how far they lead from the recipe."""
    options = [[(0, place, None), *values] for place, values in _options(planner, recipe)]
    combinations = []
    for chosen in itertools.product(*options):
        distance = sum(cost for cost, _, _ in chosen)
        changes = {place: value for _, place, value in chosen if value is not None}
        if changes:
            combinations.append((distance, len(changes), changes))
    return [changes for _, _, changes in sorted(combinations, key=lambda one: one[:2])]


def _options(planner: Planner, recipe: Recipe) -> Iterator[tuple[str, list[tuple[int, str, Any]]]]:
    """(key, its other values, each with how far it is): the same training in less memory first, then other
    bits of the base, then other things that are trained."""
    train = recipe.train
    place = "train.micro_batch_size"
    size = min(train.micro_batch_size, math.ceil(train.global_batch_size / planner.ranks))
    halves = [size // 2**step for step in range(1, size.bit_length())]
    yield place, [(step, place, value) for step, value in enumerate(halves, 1)]
    place = "train.gradient_checkpointing"
    ways = {"off": ["selective", "full"], "full": [], "auto": []}.get(
        str(train.gradient_checkpointing), ["full"]
    )
    yield place, [(step, place, way) for step, way in enumerate(ways, 1)]
    place = "train.quantize"
    experts = check_family(planner.config, recipe.base).experts
    yield place, [] if train.quantize != "none" or experts else [(4, place, "nf4")]
    for place, length in recipe.seq_len_keys().items():
        shorter = [length // 2**step for step in range(1, 8) if length // 2**step >= SHORTEST]
        yield place, [(5 * step, place, value) for step, value in enumerate(shorter, 1)]
    place = "vocab.train_embeddings"
    yield place, [] if recipe.vocab.train_embeddings == "new" else [(6, place, "new")]


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value).split("\n", 1)[0]
