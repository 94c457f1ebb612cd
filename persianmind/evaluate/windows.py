"""How a long text is cut so that every token is predicted once.

As lm-evaluation-harness does it for `loglikelihood_rolling`: the first window is led by one prefix token,
each later one by the token before it; a last window that is shorter is given the tokens before it as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """given: ids that are read alone, at least one. predicted: ids whose likelihood counts."""

    given: tuple[int, ...]
    predicted: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them, as they follow each other."""
        return self.given + self.predicted


def rolling_windows(
    ids: Sequence[int], prefix: int, size: int, stride: int | None = None
) -> Iterator[Window]:
    """Windows over a text.

    Args:
        ids: its tokens, nothing added.
        prefix: what stands before the first.
        size: how many ids a model is given at once, at most; so a window predicts as many.
        stride: how many tokens a window predicts at most; None: `size`, so that no token is read twice but by
            the last window. Smaller gives more context, at more passes.

    Raises:
        ValueError: a stride that is no part of the window.
    """
    stride = size if stride is None else stride
    if not 1 <= stride <= size:
        raise ValueError(f"a stride of {stride} is not within a window of {size}")
    if not ids:
        return
    led = [prefix, *ids]
    first = min(size, len(ids))
    yield Window((prefix,), tuple(ids[:first]))
    for start in range(first, len(ids), stride):
        end = min(start + stride, len(ids))
        # ids[i] is led[i + 1]: the model is given led[end - size : end] to predict up to ids[end - 1].
        yield Window(tuple(led[end - size : start + 1]), tuple(ids[start:end]))
