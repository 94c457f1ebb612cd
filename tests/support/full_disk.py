"""A full disk, by the kernel's file size limit: no file of this process grows beyond it while it lasts."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(limit_bytes: int = 0) -> Iterator[None]:
    """Writes beyond `limit_bytes` fail with EFBIG, whichever library makes them (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # An import would leave half a .pyc in the environment for every later run to fail on.
    wrote_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = wrote_bytecode
