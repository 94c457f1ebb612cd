"""The samples of real Persian text under tests/data/corpus (sources and licences: its README.md)."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1] / "data" / "corpus"
TEXT_FOLDER = _ROOT / "text"
INSTRUCT_FILE = _ROOT / "instruct" / "translation.jsonl.gz"
TEXT_NAMES = ("common_voice", "docs_vue", "iot_lessons", "syntran")


def sample_path(name: str) -> Path:
    """The file of one sample, a `.jsonl.gz`; `name` is one of TEXT_NAMES."""
    return TEXT_FOLDER / f"{name}.jsonl.gz"


@cache
def sample_records(path: Path) -> tuple[dict[str, Any], ...]:
    """The records of one sample file, in its order."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


def sample_documents(name: str) -> list[str]:
    """The documents of one sample as they stand in its file, in its order."""
    return [record["text"] for record in sample_records(sample_path(name))]
