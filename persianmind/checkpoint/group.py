"""What this package needs to know of the other ranks, and how all of them agree on an outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from persianmind.common.errors import CheckpointError, PersianMindError

Result = TypeVar("Result")


class RankGroup(Protocol):
    """The ranks that save or load together. `all_gather` returns one value per rank, in rank order, and is a
    barrier; values are JSON-able. A group used by a background writer must not share its collectives with
    the training thread (a process group of its own)."""

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    def all_gather(self, value: Any) -> list[Any]: ...


class SoloGroup:
    """The group of one process."""

    rank = 0
    world_size = 1

    def all_gather(self, value: Any) -> list[Any]:
        return [value]


SOLO = SoloGroup()


def describe(error: Exception) -> str:
    """One line for an error: the message of ours as it is, anything else with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PersianMindError) else f"{type(error).__name__}: {text}"


def together(
    group: RankGroup,
    action: Callable[[], Result],
    what: str,
    raises: type[CheckpointError] = CheckpointError,
) -> list[Result]:
    """Runs `action` on every rank and returns every rank's result, or raises the same error on every rank.

    No rank goes on, and none waits for ever, when another one failed: the outcome travels in the same
    exchange as the result. Results must be JSON-able.

    Raises:
        CheckpointError: (or `raises`) `action` failed somewhere; the message names rank and reason.
    """
    result: Result | None = None
    failure: str | None = None
    try:
        result = action()
    except Exception as error:
        failure = describe(error)
    outcomes = group.all_gather([failure, result])
    failures = [f"rank {rank}: {outcome[0]}" for rank, outcome in enumerate(outcomes) if outcome[0]]
    if failures:
        raise raises(f"{what}: {'; '.join(failures)}")
    return [outcome[1] for outcome in outcomes]


def on_rank_0(group: RankGroup, action: Callable[[], Result]) -> Callable[[], Result | None]:
    """The action for rank 0, nothing for the others: for use with `together`."""
    return action if group.rank == 0 else lambda: None
