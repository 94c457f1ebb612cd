"""The process that builds sources while training runs (persianmind/data/background.py starts it).

    python -m persianmind.data.build.worker --recipe recipe.yaml --tokenizer vocab/ --out data/ persian english

Sources take turns: the one that training would run out of first goes on. Readers see whole shards alone.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from persianmind.data.build.source import build_steps
from persianmind.data.read.incremental import write_failure
from persianmind.data.build.job import BuildProgress
from persianmind.data.build.priority import build_priority
from persianmind.common.errors import PersianMindError
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe

NICENESS = 10
LINE_INTERVAL_S = 10.0
PR_SET_PDEATHSIG = 1


def build_all(
    recipe: Recipe,
    names: Sequence[str],
    tokenizer_dir: Path,
    out: Path,
    on_step: Callable[[BuildProgress], None],
) -> bool:
    """Builds every source named into its folder of `out`; whether all of them could be built.

    One that fails leaves its error in its folder and does not stop the others. `on_step` is called after
    every batch of records.
    """
    running = {name: build_steps(recipe, name, tokenizer_dir, out / name) for name in names}
    sequences = dict.fromkeys(names, 0)
    whole = True
    while running:
        name = min(running, key=lambda one: build_priority(recipe, one, sequences[one]))
        try:
            step = next(running[name], None)
        except Exception as error:
            whole = False
            del running[name]
            with suppress(OSError):  # no room even for this: our exit code tells the parent
                write_failure(out / name, _describe(name, error))
            continue
        if step is None:
            del running[name]
            continue
        sequences[name] = step.shards * recipe.data.sequences_per_shard
        on_step(step)
    return whole


def _describe(name: str, error: Exception) -> str:
    """The line readers raise; what is no error of ours also leaves its traceback in the log."""
    if isinstance(error, PersianMindError):
        print(f"{name}: {error}", flush=True)
        return str(error)
    traceback.print_exc()
    return f"sources.{name}: building it ended with {type(error).__name__}: {error}; see builder.log"


class _Overseer:
    """After every batch: a line now and then, and an end where the parent is gone."""

    def __init__(self, parent: int | None) -> None:
        self.parent = parent
        self._next_line_s = 0.0

    def __call__(self, step: BuildProgress) -> None:
        if self.parent is not None and os.getppid() != self.parent:
            sys.exit("the process that asked for this build is gone")
        if time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_INTERVAL_S
            print(
                f"{step.source}: {step.records_read:,} sequences read, {step.tokens:,} tokens, {step.shards} shards, "
                f"{step.elapsed_s:.0f} s",
                flush=True,
            )


def die_with_parent() -> None:
    """Has the kernel kill this process with the one that started it (Linux; elsewhere every batch looks)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of the process: 0 when every source is whole, 1 when one failed (its folder says why)."""
    parser = argparse.ArgumentParser(prog="python -m persianmind.data.build.worker")
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        die_with_parent()
    # An orderly end: locks are dropped and no torn file is left.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.nice(NICENESS)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the other cores are for training
    recipe = load_recipe(str(options.recipe))
    overseer = _Overseer(options.parent)
    return 0 if build_all(recipe, options.names, options.tokenizer, options.out, overseer) else 1


if __name__ == "__main__":
    sys.exit(main())
