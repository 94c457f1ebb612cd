"""The golden loss curve: 30 steps of the tiny recipe over two ranks, kept as hex floats.

To the bit on the kind of machine it was made on (the same processor, torch and number of ranks give the same
sums in the same order), and to within rounding on any other. After a change that is meant to change the
numbers, `PYTHONPATH=. .venv/bin/python tests/e2e/test_e2e_golden.py RUN` writes it from a finished tiny run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.launching import Launched

GOLDEN = Path(__file__).with_name("golden_losses.json")
# Another order of fp32 sums moves a loss by about 1e-7; 30 steps at a high rate let it grow.
ELSEWHERE_RELATIVE = 2e-3


def machine() -> dict[str, str]:
    """What the bits of a sum hang on."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next(
        (line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "?"
    )
    return {
        "processor": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


@pytest.mark.slow
def test_losses_are_the_golden_ones(tiny_run: Launched) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    losses = [line["loss_hex"] for line in tiny_run.metrics]
    assert len(losses) == len(golden["losses"]) == 30
    if golden["machine"] == machine():
        assert losses == golden["losses"]
    for ours, kept in zip(losses, golden["losses"], strict=True):
        assert float.fromhex(ours) == pytest.approx(float.fromhex(kept), rel=ELSEWHERE_RELATIVE)


if __name__ == "__main__":
    lines = (Path(sys.argv[1]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    kept = {"machine": machine(), "losses": [json.loads(line)["loss_hex"] for line in lines]}
    GOLDEN.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
