"""What identifies a run: which keys of its recipe may differ when it is taken up again."""

from __future__ import annotations

from typing import Any

# What changes nothing about what is trained may differ when a run is taken up again.
FREE_SECTIONS: dict[str, Any] = {
    **dict.fromkeys(("checkpoint", "energy", "evaluate", "export"), True),
    "train": {"hang_timeout_s"},
}


def first_difference(before: Any, after: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """(dotted place, value before, value after) of the first difference of two plain trees, or None."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = first_difference(before.get(key), after.get(key), f"{place}.{key}".lstrip("."))
            if inner:
                return inner
        return None
    return None if before == after else (place, before, after)
