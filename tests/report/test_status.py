"""Where runs stand, and what they cost beside one another."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from persianmind.cli import app
from persianmind.common.checksum import write_checked
from persianmind.common.console import invoke
from persianmind.common.errors import RunFolderError
from persianmind.common.lock import LockOwner
from persianmind.report.run_commands import watch_lines
from persianmind.report.run_table import compared
from persianmind.report.status import RunState, run_status, runs_in
from persianmind.run.beside_steps import BesideSteps
from persianmind.run.folder import RunFolder, RunLock
from persianmind.run.log import read_results, update_results
from persianmind.run.records import Prepared
from tests.report.built_run import build_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return build_run(tmp_path / "runs" / "one")


def test_states(run: RunFolder) -> None:
    update_results(run, finished=False)
    assert run_status(run).state is RunState.STOPPED
    with RunLock(run):
        assert run_status(run).state is RunState.RUNNING
    update_results(run, finished=True)
    assert run_status(run).state is RunState.DONE
    gone = LockOwner(LockOwner.me().host, os.getpid(), 1.0)  # the pid of a process of long ago
    run.lock.write_text(json.dumps(asdict(gone)), encoding="utf-8")
    assert run_status(run).state is RunState.DONE


def test_the_end_is_that_of_evaluations_and_export_too(run: RunFolder) -> None:
    """Whose seconds the run has written down."""
    prepared = Prepared(
        base_fingerprint="", tokenizer_fingerprint="", sequences_by_source={"poems": 7680}, fingerprints={}
    )
    write_checked(run.prepared, prepared.model_dump(mode="json"))
    before = run_status(run)
    assert before.left_s is not None and before.total_steps is not None
    update_results(run, beside_steps=BesideSteps(stage_end_s=90.0, within_s=1.0, export_s=10.0))
    after = run_status(run)
    assert after.left_s is not None and before.step < before.total_steps
    assert after.left_s - before.left_s == 90.0 + 10.0  # of the last stage, and of the end


def test_scores_energy_and_price(run: RunFolder) -> None:
    status = run_status(run)
    first, *_, last = [one for one in read_results(run).evaluation if one.language == "fa"]
    change = status.changes["fa"]
    assert (change.base, change.last) == (first.bits_per_byte, last.bits_per_byte)
    (as_json,) = compared([status])
    price = status.kwh * 0.1 / (first.bits_per_byte - last.bits_per_byte)
    assert math.isclose(as_json["kwh_per_tenth_bit"]["fa"], price)
    assert as_json["tokens"] == status.tokens > 0 and as_json["kwh"] == status.kwh > 0


def test_a_language_that_got_worse_has_no_price(run: RunFolder) -> None:
    scores = read_results(run).evaluation
    worse = [one.model_copy(update={"bits_per_byte": 9.0}) if one.stage != "base" else one for one in scores]
    update_results(run, evaluation=worse)
    (as_json,) = compared([run_status(run)])
    assert as_json["kwh_per_tenth_bit"]["fa"] is None
    assert as_json["bits_per_byte"]["fa"]["gained"] < 0


def test_commands(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert [one.path for one in runs_in(run.path.parent)] == [run.path]
    invoke(app, ["runs", str(run.path.parent)], "persianmind")
    assert " one " in capsys.readouterr().out
    invoke(app, ["watch", str(run)], "persianmind")
    assert capsys.readouterr().out.splitlines() == watch_lines(run_status(run))
    invoke(app, ["compare", str(run), str(run)], "persianmind")
    assert "energy per 0.1 gained" in capsys.readouterr().out
    invoke(app, ["compare", str(run), "--json"], "persianmind")
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 1
    with pytest.raises(RunFolderError, match="holds no runs"):
        invoke(app, ["runs", str(run.path)], "persianmind")
