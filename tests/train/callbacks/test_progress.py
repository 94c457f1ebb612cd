"""What the screen shows of a step: plain lines now and then where there is no terminal."""

from __future__ import annotations

import re

import pytest

from persianmind.energy.budget import Budget
from persianmind.train.callbacks import progress
from persianmind.train.callbacks.progress import ProgressCallback
from tests.run.helpers import step_record
from tests.support.log import logged


@pytest.fixture
def callback() -> ProgressCallback:
    return ProgressCallback(Budget(limit_kwh=None))


def test_a_line_has_stage_step_loss_speed_time_left_and_energy(callback: ProgressCallback) -> None:
    record = step_record(
        stage="pretrain", step=3, stage_step=3, loss=2.5, tokens_per_s=1234.4, joules=5678.0, seconds=2.0
    )
    text = callback.text(record, 10)
    assert re.fullmatch(
        r"pretrain +step 3/10  loss 2\.5000  1,234 tokens/s  \d+ (s|min) left, until .*\d\d:\d\d  1\.58 Wh",
        text,
    )
    assert "loss not finite" in callback.text(step_record(step=1, loss=None), 10)
    assert " Wh" not in callback.text(step_record(step=1, joules=None), 10)


def test_time_left_is_that_of_the_steps_done_since_the_start(
    callback: ProgressCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run begins at step 101: its first step took 2 s, so nine more take 18 s."""
    now_s = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    with logged(level=20) as lines:
        callback.show(step_record(step=101, stage_step=101, seconds=2.0), 110)
    assert " 18 s left, until " in lines[0]


def test_time_left_counts_tokens_where_stages_have_sequences_of_their_own(
    callback: ProgressCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of 512 tokens in 2 s: nine more of 2,048 take four times as long each."""
    now_s = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    with logged(level=20) as lines:
        callback.show(step_record(step=1, stage_step=1, seconds=2.0, tokens=512), 10, tokens_left=9 * 2048)
    assert " 72 s left, until " in lines[0]


def test_the_end_is_that_of_evaluations_and_export_too(
    callback: ProgressCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten steps of 2 s, of 40 s in all since the start 20 were spent on scores; 300 s come beside."""
    now_s = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    with logged(level=20):
        callback.show(step_record(step=1, stage_step=1, seconds=2.0), 20)
    now_s[0] += 38.0
    callback._spent_s, callback._beside_s = 20.0, 300.0
    assert " 5 min left, until " in callback.text(step_record(step=10), 20)  # 10 x 2 + 300
    assert " 5 min left, until " in callback.text(step_record(step=20), 20)
    callback._beside_s = None
    unknown = callback.text(step_record(step=10), 20)
    assert " 20 s of steps left" in unknown and "until" not in unknown
    assert "left" not in callback.text(step_record(step=20), 20)


def test_lines_come_at_the_start_of_a_stage_at_the_end_and_every_ten_seconds(
    callback: ProgressCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    with logged(level=20) as lines:
        for step in range(1, 31):
            callback.show(step_record(step=step, stage_step=step, seconds=1.0), 30)
            now_s[0] += 1.0
    shown = [int(re.search(r"step (\d+)/", line)[1]) for line in lines]  # type: ignore[index]
    assert shown == [1, 11, 21, 30]


def test_the_budget_stands_at_the_end_of_the_line(callback: ProgressCallback) -> None:
    with logged(level=20) as lines:
        callback.show(step_record(step=1, stage_step=1), 30, budget="0.41 of 2.00 kWh")
    assert lines[0].endswith("0.41 of 2.00 kWh")


def test_a_parent_that_shows_states_gets_every_step(
    callback: ProgressCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that stay are the first of a stage and the last of all."""
    states: list[str] = []
    monkeypatch.setattr(progress, "print_state", lambda text: states.append(text) or True)
    with logged(level=20) as lines:
        for step in range(1, 6):
            callback.show(step_record(step=step, stage_step=step), 5)
    assert len(states) == 3 and len(lines) == 2
    assert "left" not in lines[-1]
