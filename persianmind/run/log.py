"""The run's own records: metrics.jsonl (a line an optimizer step), results.json, TensorBoard files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persianmind.common.atomic import read_json, write_json, write_text
from persianmind.common.errors import PersianMindError
from persianmind.run.trackers import Tracker

METRICS = "metrics.jsonl"
DISCARDED = "metrics.discarded.jsonl"
RESULTS = "results.json"


class RunLog:
    """Writes metrics on rank 0; elsewhere every call does nothing because `active` is False.

    After a crash the lines beyond the checkpoint describe steps that will be done again: `rewind` moves them
    to metrics.discarded.jsonl, so metrics.jsonl always holds each step once.
    """

    def __init__(self, run: Path, *, active: bool, trackers: Sequence[Tracker] = ()) -> None:
        self.run = run
        self.active = active
        self.trackers = trackers
        self._writer: Any = None

    def rewind(self, step: int) -> None:
        """Keeps the lines up to `step`; later or torn ones move to the discarded file."""
        path = self.run / METRICS
        if not self.active or not path.is_file():
            return
        kept: list[str] = []
        discarded: list[str] = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            (kept if _step_of(line) <= step else discarded).append(line)
        if discarded:
            with (self.run / DISCARDED).open("a", encoding="utf-8") as handle:
                handle.write("\n".join(discarded) + "\n")
            write_text(path, "".join(line + "\n" for line in kept))

    def metric(self, values: dict[str, Any]) -> None:
        """Appends one line; then the same to TensorBoard files and trackers."""
        if not self.active:
            return
        with (self.run / METRICS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(values, ensure_ascii=False) + "\n")
        self._tensorboard(values)
        for tracker in self.trackers:
            tracker.log(values)

    def flush(self) -> None:
        """Makes what was logged durable; called before every checkpoint commits."""
        path = self.run / METRICS
        if self.active and path.is_file():
            with path.open("a") as handle:
                os.fsync(handle.fileno())
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Ends the TensorBoard file and the trackers."""
        if self._writer is not None:
            self._writer.close()
        for tracker in self.trackers:
            tracker.finish()

    def _tensorboard(self, values: dict[str, Any]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(self.run / "tensorboard"))
        for name in ("loss", "learning_rate", "grad_norm", "tokens_per_s"):
            if values[name] is not None:  # a loss that was not finite
                self._writer.add_scalar(name, values[name], values["step"])


def read_results(run: Path) -> dict[str, Any]:
    """results.json, or an empty frame of it."""
    path = run / RESULTS
    if not path.is_file():
        return {"perplexity": [], "finished": False}
    results = read_json(path)
    if not isinstance(results, dict) or not isinstance(results.get("perplexity"), list):
        raise PersianMindError(f"{path} is not a results file of ours; move it away to have it made again")
    return results


def update_results(run: Path, **changes: Any) -> dict[str, Any]:
    """Replaces top-level keys of results.json, whole or not at all."""
    results = {**read_results(run), **changes}
    write_json(run / RESULTS, results)
    return results


def add_evaluation(run: Path, row: dict[str, Any]) -> None:
    """Adds or replaces the evaluation row of one stage, in the order they come."""
    rows = [one for one in read_results(run)["perplexity"] if one["stage"] != row["stage"]]
    update_results(run, perplexity=[*rows, row])


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut by a crash
