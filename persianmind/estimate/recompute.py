"""Which layers the backward pass computes again, from how much memory each way would leave."""

from __future__ import annotations

from collections.abc import Callable

from persianmind.recipe.train import FullLayers

Setting = str | FullLayers


def choose_recompute(headroom: Callable[[Setting], int], layers: int) -> Setting:
    """The fastest way that fits: nothing computed again, or what costs no matmul, or as few whole layers as
    memory asks for. `full` where that does not fit either: nothing takes less.

    Selective recompute runs no matmul twice, but its bookkeeping takes the host milliseconds per layer, for
    which a fast GPU waits; so nothing is recomputed where that fits.

    Args:
        headroom: bytes to spare on every rank under a `gradient_checkpointing`; the more layers are
            recomputed whole, the more.
        layers: of the base.
    """
    for setting in ("off", "selective"):
        if headroom(setting) >= 0:
            return setting
    if headroom("full") < 0:
        return "full"
    low, high = 0, layers  # so many whole layers do not fit, and do
    while high - low > 1:
        middle = (low + high) // 2
        if headroom(FullLayers(full_layers=middle)) >= 0:
            high = middle
        else:
            low = middle
    return "full" if high == layers else FullLayers(full_layers=high)


def in_words(setting: Setting, layers: int) -> str:
    """What is computed again, for people."""
    if isinstance(setting, FullLayers):
        return f"{setting.full_layers} of {layers} layers whole, the others selectively"
    return {
        "off": "nothing",
        "selective": f"norms, rotations and activations of {layers} layers",
        "full": f"{layers} layers whole",
    }[setting]
