"""The best checkpoint by a metric, and stages that end once it no longer gets better."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from persianmind.checkpoint.store import CheckpointStore
from persianmind.recipe.loading import load_recipe
from persianmind.run.evaluation_records import SuiteResult
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results
from persianmind.train.callbacks.best import BestCallback


class Run:
    """A run of one stage that measures every step."""

    def __init__(self, path: Path, *overrides: str) -> None:
        self.recipe = load_recipe("tiny", [*overrides])
        self.folder, self.is_main, self.step, self.stage_step = RunFolder(path), True, 0, 0
        self.at_stage_end = False
        self.plan = SimpleNamespace(stage=SimpleNamespace(name="pretrain"), last_step=99)
        self.ended: list[dict[str, int]] = []
        self.evaluate: Any = SimpleNamespace(newest=None)
        self.suites: Any = SimpleNamespace(newest=None)
        self.kept: list[int] = []
        store = SimpleNamespace(keep_step=None)
        self.saves: Any = SimpleNamespace(store=store, keep=lambda context: self.kept.append(context.step))
        self.callback = self.new()

    def new(self) -> BestCallback:
        return BestCallback(self.recipe, self.evaluate, self.suites, self.saves)

    def replan(self, ended: dict[str, int]) -> None:
        self.ended.append(dict(ended))
        self.at_stage_end = True

    def measure(self, *values: float) -> None:
        for value in values:
            self.step += 1
            self.stage_step += 1
            self.evaluate.newest = (self.step, {"fa": value, "en": 1.0})
            self.callback.after_step(self, None)  # type: ignore[arg-type]


def test_the_checkpoint_of_the_lowest_bits_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, "evaluate.best_metric=fa")
    run.measure(2.0, 1.8, 1.9, 1.7, 1.75)
    assert run.kept == [1, 2, 4]
    best = read_results(run.folder).best
    assert best is not None and (best.metric, best.value, best.step) == ("fa", 1.7, 4)


def test_a_metric_of_a_suite_gets_better_as_it_rises(tmp_path: Path) -> None:
    run = Run(tmp_path, "evaluate.best_metric=own/t/accuracy_letter")
    for step, value in enumerate((0.2, 0.4, 0.3), 1):
        run.step = step
        result = SuiteResult(suite="own", task="t", metric="accuracy_letter", value=value, n=5)
        run.suites.newest = (step, [result])
        run.callback.after_step(run, None)  # type: ignore[arg-type]
    assert run.kept == [1, 2]


def test_a_stage_ends_after_so_many_measurements_without_gain(tmp_path: Path) -> None:
    run = Run(tmp_path, "evaluate.best_metric=fa", "evaluate.patience=2", "evaluate.min_gain=0.01")
    run.measure(2.0, 1.8, 1.795)  # less than 1% of gain is none
    assert not run.ended
    run.measure(1.81)
    assert run.ended == [{"pretrain": 4}]


def test_a_run_that_goes_on_judges_as_the_one_before_did(tmp_path: Path) -> None:
    run = Run(tmp_path, "evaluate.best_metric=fa", "evaluate.patience=3")
    run.measure(2.0, 1.9, 1.95)
    state = json.loads(json.dumps(run.callback.state_dict(), allow_nan=False))
    run.callback = run.new()
    run.callback.load_state_dict(state)
    run.callback.start(run)  # type: ignore[arg-type]
    assert run.callback.best == (1.9, 2) and run.callback.misses == 1
    assert run.saves.store.keep_step == 2
    run.measure(1.96, 1.97)
    assert run.ended == [{"pretrain": 5}]


def test_without_a_metric_nothing_is_judged(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.measure(2.0, 1.0)
    assert not run.kept and read_results(run.folder).best is None


@pytest.mark.parametrize("keep_step", [None, 1])
def test_what_is_kept_outlives_the_newest(tmp_path: Path, keep_step: int | None) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_every_steps=None)
    store.keep_step = keep_step
    for step in range(1, 6):
        store.save(step, {}, lambda folder: (folder / "weights").write_bytes(b"x") and None)
    steps = sorted(int(path.name.removeprefix("step-")) for path in tmp_path.glob("step-*"))
    assert steps == ([4, 5] if keep_step is None else [1, 4, 5])
