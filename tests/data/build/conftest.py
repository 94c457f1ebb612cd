from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.helpers import sentences, write_jsonl


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two files of 1,300 records with some bad ones: several batches, many shards."""
    texts = sentences(1300, seed=3)
    records: list[dict[str, Any]] = [{"id": f"doc/{i}", "text": text} for i, text in enumerate(texts)]
    records[7] = {"id": "doc/7"}
    records[800] = {"text": 5}
    records[900]["text"] = texts[100]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records[:700])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", records[700:])
    return tmp_path / "corpus"
