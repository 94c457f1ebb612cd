"""Writing broken files, and reading them as a build does."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from persianmind.recipe import Source
from persianmind.text.quarantine import Quarantine
from persianmind.text.stream import stream_records

GOOD = ["متن نخست که خوب است", "متن دوم: می‌روم", "a third, English text"]


def line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def good(i: int) -> bytes:
    return line({"id": f"g/{i}", "text": GOOD[i]})


def read(path: Path, **source: Any) -> tuple[list[str], Quarantine, list[dict[str, Any]]]:
    """Texts of the good records, the counts, and the lines of the quarantine file."""
    quarantine = Quarantine(path.parent / "quarantine.jsonl")
    records = list(stream_records("s", Source(uri=str(path), **source), quarantine))
    quarantine.close()
    file = path.parent / "quarantine.jsonl"
    lines = [json.loads(one) for one in file.read_text().splitlines()] if file.exists() else []
    return [record.fields.get("text", "") for record in records], quarantine, lines


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def peak_bytes(action: Callable[[], Any]) -> int:
    """The most memory Python held at once while this ran."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
