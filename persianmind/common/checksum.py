"""Hashes of files and strings: they detect damage and tell contents apart, and defend against no forgery."""

from __future__ import annotations

from pathlib import Path

import xxhash


def hash_file(path: Path) -> str:
    """xxh3-128 of a file's bytes, as 32 hex digits. Detects damage; it is no defence against forgery."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_text(*parts: str) -> str:
    """xxh3-128 over several strings; lengths are mixed in, so ("ab", "c") differs from ("a", "bc")."""
    digest = xxhash.xxh3_128()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()
