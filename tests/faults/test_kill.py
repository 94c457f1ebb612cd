"""kill -9 of a random rank, at random steps and at every phase of a save; the same command goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from persianmind.checkpoint.store import PHASES
from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, assert_same_run, count, is_long, newest_step, prepared_copy
from tests.support.launch import Launched

pytestmark = pytest.mark.integration
KILLS_A_RUN = 5
RUNS = 10 if is_long() else 1
PHASE_ROUNDS = 5 if is_long() else 1
LAST = 30
# Rank 0 commits alone: a kill of rank 1 in these phases may come too late to stop it.
BEFORE_COMMIT = ("begun", "prepared", "written", "hashed")
COMMITTED = ("renamed", "pointed")


@pytest.mark.more
@pytest.mark.parametrize("seed", range(RUNS))
def test_kill_9_at_random_steps_leaves_every_loss_as_it_was(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched, seed: int
) -> None:
    """Five kills of one run, each of a random rank before, within or after a random step."""
    draw = random.Random(seed)
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    at = sorted(draw.sample(range(2, LAST + 1), KILLS_A_RUN))
    for step in at:
        kind, rank = draw.choice(["kill", "kill-in", "kill-after"]), draw.randrange(2)
        killed = fleet.run(run, *BARE, fault=f"{kind}:{rank}:{step}")
        assert killed.codes[rank] == -9, killed.text
        assert not killed.shared_buffers
        assert newest_step(run) <= step
    again = fleet.run(run, *BARE)
    assert again.code == 0 and "resuming from" in again.text, again.text
    assert_same_run(again, tiny_run)
    assert again.results["evaluation"] == tiny_run.results["evaluation"]
    count("kill -9 of a random rank at a random step", len(at), KILLS_A_RUN)


@pytest.mark.more
@pytest.mark.parametrize("round_", range(PHASE_ROUNDS))
def test_kill_9_in_every_phase_of_a_save_resumes_from_the_newest_whole_one(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched, round_: int
) -> None:
    """A save at every step; each of the first 14 is broken once, at another phase or on the other rank."""
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    cases = [(phase, rank) for phase in PHASES[:7] for rank in (0, 1)]
    random.Random(round_).shuffle(cases)
    step = 1 + round_
    for phase, rank in cases:
        before = newest_step(run)
        broken = fleet.run(run, *BARE, "checkpoint.every_steps=1", fault=f"kill-save:{rank}:{step}:{phase}")
        assert broken.codes[rank] == -9, (phase, rank, broken.text)
        assert before == 0 or f"at step {before}\n" in broken.text
        newest = newest_step(run)
        if phase in COMMITTED:
            assert newest == step, (phase, rank)
        elif phase in BEFORE_COMMIT[:3] or rank == 0:
            assert newest == step - 1, (phase, rank)
        else:
            assert newest in (step - 1, step), (phase, rank)
        step += 1
    again = fleet.run(run, *BARE, "checkpoint.every_steps=1")
    assert again.code == 0, again.text
    assert not list((run / "checkpoints").glob(".tmp-*"))
    assert_same_run(again, tiny_run)
    count("kill -9 at 7 phases of a save, each rank", len(cases), 14)


@pytest.mark.more
def test_buffers_of_ranks_that_were_killed_as_the_group_was_made_go_with_the_next_start(
    fleet: Fleet, tmp_path: Path, tiny_run: Launched
) -> None:
    run = prepared_copy(tiny_run.run, tmp_path / "run")
    killed = fleet.run(run, *BARE, fault="kill-start:0:0;kill-start:1:0")
    assert killed.codes == [-9, -9] and len(killed.shared_buffers) == 2
    again = fleet.run(run, *BARE)
    assert again.code == 0 and "MB of killed runs removed from /dev/shm" in again.text, again.text
    assert not killed.shared_buffers and not again.shared_buffers
    assert_same_run(again, tiny_run)


@pytest.mark.more
def test_control_another_start_gives_other_losses(fleet: Fleet, tmp_path: Path, tiny_run: Launched) -> None:
    """What the comparisons above can see: one changed rate changes the losses."""
    run = prepared_copy(tiny_run.run, tmp_path / "run", "train.learning_rate=4e-3")
    other = fleet.run(run, *BARE, "train.learning_rate=4e-3")
    assert other.code == 0, other.text
    with pytest.raises(AssertionError):
        assert_same_run(other, tiny_run)
    assert other.metrics[0]["loss_hex"] == tiny_run.metrics[0]["loss_hex"]
