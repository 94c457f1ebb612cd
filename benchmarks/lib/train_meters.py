"""What the sides of benchmarks/train.py measure with: useful tokens per second, memory, bytes on disk."""

from __future__ import annotations

import time
from pathlib import Path


class StepTimer:
    """Useful tokens a second of all steps but the first, until enough tokens were useful."""

    def __init__(self, useful_tokens: int) -> None:
        self.limit = useful_tokens
        self.useful = self.tokens = self.timed_useful = self.steps = 0
        self.started_s = 0.0
        self.ended_s = 0.0

    def step(self, useful: int, *, tokens: int) -> bool:
        """After each optimizer step, with the numbers of all ranks together; True: enough."""
        self.ended_s = time.perf_counter()
        self.steps += 1
        self.useful += useful
        self.tokens += tokens
        if self.steps == 1:
            self.started_s = self.ended_s
        else:
            self.timed_useful += useful
        return self.useful >= self.limit

    def figures(self, before_bytes: int) -> dict[str, float]:
        """What all sides report. before_bytes: memory with everything imported and no model yet."""
        seconds = self.ended_s - self.started_s
        return {
            "useful_tokens_per_s": self.timed_useful / seconds,
            "step_s": seconds / (self.steps - 1),
            "steps": self.steps,
            "useful_tokens": self.useful,
            "fill": self.useful / self.tokens,
            "peak_bytes": status_bytes("VmHWM"),
            "above_imports_bytes": status_bytes("VmHWM") - before_bytes,
        }


class PeakMemory:
    """Highest memory of this process within the block, and how far above its beginning that is."""

    def __enter__(self) -> PeakMemory:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present size
        self.before = status_bytes("VmRSS")
        return self

    def __exit__(self, *exc: object) -> None:
        self.peak = status_bytes("VmHWM")

    def figures(self) -> dict[str, int]:
        """In bytes."""
        return {"peak_bytes": self.peak, "above_model_bytes": self.peak - self.before}


def folder_bytes(folder: Path) -> int:
    """All files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")
