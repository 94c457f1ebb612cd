"""Memory of freed tensors, given back to the system on CPUs.

The C library keeps what layers free, in pieces between tensors that live on: when the loss begins, before a
step's highest moment, as much lies free there as is in use (docs/benchmarks.md).
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

# Below this a trim saves nothing that matters, and small steps would wait for it.
LEAST_FREE_BYTES = 128 << 20


class _Counts(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        )
    )  # fmt: skip


def give_back_freed() -> bool:
    """Gives pages back in which nothing lies; whether there were enough of them. Elsewhere than on glibc
    nothing is done."""
    library = _library()
    if library is None or library.mallinfo2().fordblks < LEAST_FREE_BYTES:
        return False
    library.malloc_trim(0)
    return True


@functools.cache
def _library() -> Any:
    """glibc from 2.33 on; None: another C library."""
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallinfo2.restype = _Counts
        library.malloc_trim.argtypes = (ctypes.c_size_t,)
    except (OSError, AttributeError):
        return None
    return library
