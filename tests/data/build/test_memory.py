"""A book on one line: built in memory that is some times its size, not a hundred."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.helpers import make_bpe
from tests.support.corpus import TEXT_NAMES, sample_documents

DOCUMENT_BYTES = 28 << 20
PEAK_MB = 400

_BUILD = """
import sys
from pathlib import Path
from persianmind.data.build.builder import build_source
from persianmind.data.build.source import source_job
from persianmind.data.options import recipe_of
if sys.argv[4] == "whole":  # the control: as one piece
    import persianmind.tokenizer.folder as folder
    folder.LONG_CHARACTERS = 1 << 40
plan = recipe_of(None, [sys.argv[1]], "text", "fa", "text", [])
folders = {"tokenizer": Path(sys.argv[2]), "out": Path(sys.argv[3]), "heldout": Path()}
job = source_job(plan, plan.packing("source"), **folders)
manifest = build_source(job)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(manifest.documents, manifest.tokens, int(peak) * 1024)
"""


def build(text: Path, tokenizer: Path, out: Path, how: str) -> list[int]:
    command = [sys.executable, "-c", _BUILD, str(text), str(tokenizer), str(out), how]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    return [int(one) for one in run.stdout.split()[-3:]]


@pytest.mark.more
def test_a_document_of_28_mib_takes_under_400_mb(tmp_path: Path) -> None:
    body = " ".join(" ".join(one for name in TEXT_NAMES for one in sample_documents(name)).split())
    document = " ".join([body] * (DOCUMENT_BYTES // len(body.encode()) + 1)).encode()[:DOCUMENT_BYTES]
    path = tmp_path / "book.jsonl"
    record = {"text": document.decode("utf-8", "ignore")}
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    tokenizer = make_bpe(tmp_path / "tokenizer", vocab_size=4000)
    documents, tokens, peak_bytes = build(path, tokenizer, tmp_path / "pieces", "pieces")
    print(f"28 MiB on one line: {tokens:,} tokens, peak {peak_bytes / 1e6:.0f} MB")
    assert documents == 1 and tokens > 1e6 and peak_bytes < PEAK_MB * 1e6
    same = build(path, tokenizer, tmp_path / "whole", "whole")
    assert same[:2] == [documents, tokens] and same[2] > 3 * PEAK_MB * 1e6
    shards = [sorted((tmp_path / how / "").glob("*.safetensors")) for how in ("pieces", "whole")]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*shards, strict=True)) and shards[0]
