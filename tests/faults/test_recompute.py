"""Recompute that a run decided once: kept when it goes on, and every loss stays what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results, update_results
from persianmind.run.records import Recompute
from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, assert_same_run, losses, newest_step, prepared_copy
from tests.support.launch import ROOT, Launched, launch

pytestmark = pytest.mark.integration
AUTO = "train.gradient_checkpointing=auto"
FAULTY = ROOT / "tests" / "faults" / "faulty_train.py"


@pytest.mark.more
def test_a_killed_run_goes_on_with_its_choice_to_the_bit(tmp_path: Path, tiny_run: Launched) -> None:
    """Through the real launcher; the run beside it recomputes whole layers and gives the same losses."""
    run = prepared_copy(tiny_run.run, tmp_path / "run", AUTO)
    flags = ("--recipe", "tiny", "--output", str(run), AUTO, *BARE)
    killed = launch(*flags, script=FAULTY, environment={"FAULT": "kill:1:14"})
    assert killed.code != 0 and "recompute: nothing; memory per rank" in killed.text, killed.text
    assert newest_step(run) == 12
    again = launch(*flags)
    assert again.code == 0 and "(as this run began)" in again.text, again.text
    assert_same_run(again, tiny_run)
    recorded = read_results(RunFolder(run)).recompute
    assert recorded is not None and recorded.setting == "off"


def test_another_number_of_ranks_keeps_it_too(fleet: Fleet, tmp_path: Path, tiny_run: Launched) -> None:
    """As begun on a machine with less memory than this one."""
    run = prepared_copy(tiny_run.run, tmp_path / "run", AUTO)
    small = Recompute(setting={"full_layers": 1}, needed_bytes=10**12, usable_bytes=10**12)
    update_results(RunFolder(run), recompute=small)
    begun = fleet.run(run, AUTO, *BARE, fault="kill:0:9")
    assert "recompute: 1 of 2 layers whole, the others selectively" in begun.text, begun.text
    again = fleet.run(run, AUTO, *BARE, ranks=1, fault="term:0:6")
    assert again.code == 75 and "1 of 2 layers whole" in again.text, again.text
    assert "it will not fit" in again.text  # by the figures written above
    assert read_results(RunFolder(run)).recompute == small
    known, found = losses(tiny_run), losses(again)
    assert {step: known[step] for step in range(1, 5)} == {step: found[step] for step in range(1, 5)}
    for step in sorted(found)[4:]:  # sums over ranks come in another order
        assert float.fromhex(found[step]) == pytest.approx(float.fromhex(known[step]), rel=1e-4)
