"""Golden values of the tiny recipe over two ranks: every loss as a hex float, every packed sequence by hash.

Losses are equal to the bit where processor capability and torch version are those of a recorded set (the same
sums in the same order). Elsewhere they agree to within rounding only, and the test says so by being skipped
after it has checked that. Sequences are integers: equal everywhere.

After a change that is meant to change the numbers, in a commit of its own:
    PYTHONPATH=. .venv/bin/python tests/e2e/test_golden.py RUN      (a finished tiny run)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash

from persianmind.data.read.dataset import TokenDataset
from tests.support.launch import Launched

GOLDEN = Path(__file__).with_name("golden.json")
# Another order of fp32 sums moves a loss by about 1e-7; 30 steps at a high rate let it grow.
ELSEWHERE_RELATIVE = 2e-3


def machine_key() -> str:
    """What the bits of a sum depend on."""
    return f"{torch.backends.cpu.get_cpu_capability()} torch {torch.__version__}"


def run_losses(run: Path) -> list[str]:
    """The loss of every step, as hex."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss_hex"] for line in lines]


def sequence_hashes(run: Path) -> dict[str, str]:
    """By source: a hash over tokens, positions, labels and document lengths of all its packed sequences."""
    hashes = {}
    for folder in sorted((run / "data").iterdir()):
        dataset, digest = TokenDataset(folder), xxhash.xxh3_128()
        for index in range(len(dataset)):
            sequence = dataset.sequence(index)
            for array in (
                sequence.input_ids,
                sequence.position_ids,
                sequence.labels,
                dataset.doc_lengths(index),
            ):
                digest.update(array.astype("<i8").tobytes())
        hashes[folder.name] = f"{len(dataset)} {digest.hexdigest()}"
    return hashes


def read_golden() -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return golden


@pytest.mark.integration
def test_losses_are_the_golden_ones(tiny_run: Launched) -> None:
    losses, recorded = run_losses(tiny_run.run), read_golden()["losses"]
    assert len(losses) == 30
    if machine_key() in recorded:
        assert losses == recorded[machine_key()]
        return
    for ours, kept in zip(losses, next(iter(recorded.values())), strict=True):
        assert float.fromhex(ours) == pytest.approx(float.fromhex(kept), rel=ELSEWHERE_RELATIVE)
    pytest.skip(f"no golden losses for {machine_key()!r}: compared with another machine's to within rounding")


@pytest.mark.integration
def test_packed_rows_are_the_golden_ones(tiny_run: Launched) -> None:
    assert sequence_hashes(tiny_run.run) == read_golden()["sequences"]


if __name__ == "__main__":
    finished = Path(sys.argv[1])
    golden = read_golden() if GOLDEN.is_file() else {"losses": {}, "sequences": {}}
    golden["losses"][machine_key()] = run_losses(finished)
    golden["sequences"] = sequence_hashes(finished)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
