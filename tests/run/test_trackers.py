"""Trackers: every metrics line arrives as numbers; one that fails is dropped and training goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from persianmind.checks.machine import check_trackers
from persianmind.common.errors import MachineError
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import RunLog
from persianmind.run.trackers import make_trackers
from tests.run.helpers import step_record

# A stand-in with trackio's three calls that writes down what it is told.
STAND_IN = """
import json, pathlib
HERE = pathlib.Path(__file__).parent
def _write(*what):
    with (HERE / "calls.jsonl").open("a") as handle:
        handle.write(json.dumps(what) + chr(10))
def init(**options):
    if (HERE / "refuse").exists():
        raise RuntimeError("no login")
    _write("init", options["project"], options["name"], options["config"]["name"])
    return object()
def log(values, step):
    if step == 3:
        raise OSError("the network is gone")
    _write("log", values, step)
def finish():
    _write("finish")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trackio.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    return tmp_path


def test_a_tracker_gets_numbers_until_it_fails(stand_in: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = load_recipe("tiny", ["train.trackers=[trackio]"])
    run = stand_in / "run"
    run.mkdir()
    log = RunLog(RunFolder(run), active=True, trackers=make_trackers(recipe, run))
    for step in range(1, 6):
        log.append(step_record(step))
    log.close()
    calls = [json.loads(line) for line in (stand_in / "calls.jsonl").read_text().splitlines()]
    assert calls[0] == ["init", "persianmind", "run", "tiny"]
    assert [(what, step) for what, _, step in calls[1:]] == [("log", 1), ("log", 2)]
    sent = calls[2][1]
    assert {"step": 2, "loss": 1.5, "learning_rate": 0.1, "tokens_per_s": 9.0}.items() <= sent.items()
    assert all(type(value) in (int, float) for value in sent.values())  # no text, no truth value, no None
    assert "trackio dropped, training goes on: the network is gone" in caplog.text
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 5


def test_one_that_does_not_start_is_one_clear_line(stand_in: Path) -> None:
    (stand_in / "refuse").touch()
    with pytest.raises(MachineError, match=r"trackio did not start: no login"):
        make_trackers(load_recipe("tiny", ["train.trackers=[trackio]"]), stand_in)


def test_a_missing_package_is_found_before_anything_is_written() -> None:
    with pytest.raises(MachineError, match="pip install wandb"):
        check_trackers(["wandb"])
