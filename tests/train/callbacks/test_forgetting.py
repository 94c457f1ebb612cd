"""The guard against forgetting: what it compares, when it speaks, when it stops, and what it may cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from persianmind.common.errors import DamagedFileError, ForgettingError
from persianmind.evaluate.stats import ConfidenceInterval
from persianmind.evaluate.text import Score
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.train.callbacks import forgetting
from persianmind.train.callbacks.forgetting import ForgettingCallback
from tests.support.log import logged

BASE = np.array([100.0, 220.0, 310.0, 150.0, 400.0, 90.0, 180.0, 260.0])


def recipe(**options: Any) -> Recipe:
    values = {"language": "en", "every_steps": 2, "max_increase": 0.05, **options}
    return load_recipe("tiny", [f"evaluate.forgetting={values}".replace("'", "")])


class Run:
    """A run whose loss on each document is the base's times a factor, with some noise."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, made: Recipe) -> None:
        self.recipe, self.folder, self.is_main, self.step = made, RunFolder(path), True, 0
        self.plan = SimpleNamespace(stage=SimpleNamespace(name="pretrain"))
        self.engine = SimpleNamespace(max=lambda value: value)
        self.factor, self.noise, self.scored, self.interrupted = 1.0, np.zeros(len(BASE)), 0, 0
        self.callbacks = [SimpleNamespace(interrupt=self._interrupt)]
        documents = [SimpleNamespace(text=f"document {i}") for i in range(len(BASE))]
        monkeypatch.setattr(forgetting, "read_held_out", lambda *_: documents)
        monkeypatch.setattr(forgetting, "held_out_sequences", lambda texts, *_: SimpleNamespace(n=len(texts)))
        monkeypatch.setattr(forgetting, "resolve_base", lambda base: path)
        monkeypatch.setattr(forgetting, "score_language", self._score)

    def _score(self, context: Any, held_out: Any, base_vocab_only: bool = False) -> Score:
        self.scored += 1
        nats = BASE if base_vocab_only else BASE * self.factor + self.noise
        return Score(1.0, ConfidenceInterval(), nats, 0.0, 0)

    def _interrupt(self, context: Any) -> None:
        self.interrupted += 1

    def begin(self, callback: ForgettingCallback) -> None:
        """As at a start long ago: what a check may take of the time is no matter."""
        callback.start(self)  # type: ignore[arg-type]
        callback.started_s -= 1e6

    def mark(self, *_: Any) -> None:
        pass


def trained(run: Run, callback: ForgettingCallback, steps: int) -> None:
    for step in range(run.step + 1, run.step + steps + 1):
        run.step = step
        callback.after_step(run, None)  # type: ignore[arg-type]


def test_within_the_bound_nothing_is_said_but_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(max_time_ratio=1.0)
    run, callback = Run(tmp_path, monkeypatch, made), ForgettingCallback(made)
    run.begin(callback)
    run.factor = 1.03
    with logged(level=20) as lines:
        trained(run, callback, 4)
    assert [line for line in lines if "+3.00% against the base" in line] == lines and len(lines) == 2


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_beyond_the_bound_it_warns_or_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    made = recipe(action=action, max_time_ratio=1.0)
    run, callback = Run(tmp_path, monkeypatch, made), ForgettingCallback(made)
    run.begin(callback)
    run.factor = 1.2
    if action == "warn":
        with logged(level=30) as lines:
            trained(run, callback, 2)
        assert len(lines) == 1 and "more than the 5.0% allowed" in lines[0]
    else:
        with pytest.raises(
            ForgettingError, match=r"\+20\.00% against the base at step 2 .*stopped and saved"
        ):
            trained(run, callback, 2)
        assert run.interrupted == 1


def test_beyond_the_bound_within_the_noise_of_the_documents_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight percent more in all, from one document alone: the others say nothing of the kind."""
    made = recipe(action="stop", max_time_ratio=1.0)
    run, callback = Run(tmp_path, monkeypatch, made), ForgettingCallback(made)
    run.begin(callback)
    run.noise[1] = 0.08 * BASE.sum()
    trained(run, callback, 2)
    assert run.interrupted == 0


def test_it_takes_its_part_of_the_time_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of 1 s, steps of 1 s, every step wanted: at 2% of the time it is made every 50th."""
    made = recipe(every_steps=1, max_time_ratio=0.02)
    now_s = [1000.0]
    monkeypatch.setattr(forgetting.time, "monotonic", lambda: now_s[0])
    run, callback = Run(tmp_path, monkeypatch, made), ForgettingCallback(made)
    ordinary = run._score

    def slow(*arguments: Any, **options: Any) -> Score:
        now_s[0] += 1.0
        return ordinary(*arguments, **options)

    monkeypatch.setattr(forgetting, "score_language", slow)
    callback.start(run)  # type: ignore[arg-type]
    run.scored = 0
    for run.step in range(1, 1001):
        now_s[0] += 1.0
        callback.after_step(run, None)  # type: ignore[arg-type]
    elapsed_s = now_s[0] - callback.started_s
    assert 15 <= run.scored <= 0.02 * elapsed_s + 1


def test_a_run_that_goes_on_reads_what_the_base_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe()
    run, first = Run(tmp_path, monkeypatch, made), ForgettingCallback(made)
    first.start(run)  # type: ignore[arg-type]
    run.step, run.scored = 5, 0
    again = ForgettingCallback(made)
    again.start(run)  # type: ignore[arg-type]
    assert run.scored == 0 and list(again.base_nats_N) == list(BASE)  # type: ignore[arg-type]
    run.folder.base_documents("en").unlink()
    with pytest.raises(DamagedFileError, match="can be scored before step 1 alone"):
        ForgettingCallback(made).start(run)  # type: ignore[arg-type]


def test_without_a_guard_nothing_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_recipe("tiny")
    run, callback = Run(tmp_path, monkeypatch, made), ForgettingCallback(made)
    callback.start(run)  # type: ignore[arg-type]
    trained(run, callback, 4)
    assert run.scored == 0
