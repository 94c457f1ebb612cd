"""Whatever a part does, the others run, and the report is whole at every moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from persianmind.gpucheck import report as report_module
from persianmind.gpucheck import runner
from persianmind.gpucheck.report import CheckReport, PartOutcome, PartStatus
from persianmind.gpucheck.runner import run_check
from tests.gpucheck.faulty_parts import part
from tests.support.launch import ROOT


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def read(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SMALL_LIMIT_S", 6.0)


def test_every_way_to_fail_is_named_and_the_rest_still_runs(tmp_path: Path) -> None:
    names = ("raising", "killing_itself", "leaving", "failing_a_check", "not_here", "good")
    report = run_check([part(name) for name in names], tmp_path, small=True)
    parts = read(tmp_path)["parts"]
    assert [parts[name]["status"] for name in names] == [*["failed"] * 4, "skipped", "passed"]
    assert parts["raising"]["reason"] == "RuntimeError: CUDA error: no kernel image is available"
    assert parts["raising"]["values"] == {"before": 1}
    assert "a last word on standard output" in parts["raising"]["log"]
    assert "SIGKILL" in parts["killing_itself"]["reason"] and parts["killing_itself"]["values"] == {
        "before": 1
    }
    assert parts["leaving"]["reason"] == "its process ended with status 7"
    assert parts["failing_a_check"]["reason"].startswith('1 of 2 checks: {"name": "one is two"')
    assert parts["not_here"]["reason"].startswith("needs 2 GPUs")
    assert parts["good"]["values"] == {"number": 1.5, "not_a_number": "nan", "small": True}
    assert parts["good"]["checks"] == [{"name": "one is one", "ok": True, "seen": 1}]
    assert parts["good"]["log"] == []
    assert not report.ok and read(tmp_path)["finished"] and not read(tmp_path)["ok"]


def test_passed_and_skipped_parts_make_a_good_check(tmp_path: Path) -> None:
    assert run_check([part("good"), part("not_here")], tmp_path, small=True).ok
    assert read(tmp_path)["ok"] and read(tmp_path)["small"] and read(tmp_path)["format"] == 1
    assert read(tmp_path)["versions"]["torch"] and "flash-attn" in read(tmp_path)["versions"]


@pytest.mark.usefixtures("short_limit")
def test_a_part_over_its_time_is_killed_with_all_it_started(tmp_path: Path) -> None:
    started_s = time.monotonic()
    run_check([part("hanging"), part("good")], tmp_path, small=True)
    parts = read(tmp_path)["parts"]
    assert time.monotonic() - started_s < 60
    assert parts["hanging"]["status"] == "timed out" and parts["hanging"]["reason"] == "killed after its 6 s"
    assert parts["hanging"]["values"]["before"] == 1  # what was found until then is kept
    assert is_gone(parts["hanging"]["values"]["child"])
    assert parts["good"]["status"] == "passed"


@pytest.mark.usefixtures("short_limit")
def test_control_without_the_group_a_child_of_the_part_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_end_group", lambda process: (process.kill(), process.wait()))
    run_check([part("hanging")], tmp_path, small=True)
    child = read(tmp_path)["parts"]["hanging"]["values"]["child"]
    assert not is_gone(child)
    os.kill(child, 9)


def test_parts_beyond_the_time_of_the_whole_are_not_run(tmp_path: Path) -> None:
    report = run_check(
        [part("good"), part("looking")], tmp_path, small=True, whole_limit_s=runner.LEAST_S + 0.05
    )
    assert report.parts["looking"].status == PartStatus.FAILED
    assert report.parts["looking"].reason.startswith("not run: the time")
    assert not report.parts["looking"].values and not report.ok


def test_a_part_sees_what_is_done_what_runs_and_what_waits(tmp_path: Path) -> None:
    run_check([part("raising"), part("looking"), part("good")], tmp_path, small=True)
    seen = read(tmp_path)["parts"]["looking"]["values"]["seen"]
    assert seen == {"raising": "failed", "looking": "running", "good": "waiting"}


def _read_all_the_time(path: Path, stop: threading.Event, broken: list[str]) -> None:
    while not stop.is_set():
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            broken.append(str(error))
        except FileNotFoundError:
            pass


def _broken_reads(tmp_path: Path) -> list[str]:
    """Of a reader that never stops, while a report of some length changes many times."""
    stop, broken = threading.Event(), list[str]()
    path = tmp_path / "report.json"
    reader = threading.Thread(target=_read_all_the_time, args=(path, stop, broken))
    reader.start()
    report = CheckReport(path, [f"part-{number}" for number in range(30)], small=True)
    for name in report.parts:
        report.begin(name)
        report.end(name, PartOutcome(PartStatus.PASSED, values={"rows": list(range(300))}))
    stop.set()
    reader.join()
    assert report.finished and report.ok
    return broken


def test_the_report_is_whole_at_every_moment(tmp_path: Path) -> None:
    assert _broken_reads(tmp_path) == []


def test_control_a_report_written_in_place_is_seen_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_place(path: Path, value: Any) -> None:
        text = json.dumps(value)
        with path.open("w", encoding="utf-8") as handle:
            for start in range(0, len(text), 4096):
                handle.write(text[start : start + 4096])
                handle.flush()
                time.sleep(0.0005)

    monkeypatch.setattr(report_module, "write_json", in_place)
    assert _broken_reads(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
from persianmind.gpucheck.runner import run_check
from persianmind.cli import app
from tests.gpucheck.faulty_parts import part
assert run_check([part("good")], Path(sys.argv[1]), small=True).ok
print(sorted({"torch", "deepspeed", "transformers"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("planted", "expected"), [("", "[]"), ("import torch", "['torch']")])
def test_the_parent_imports_no_torch(tmp_path: Path, planted: str, expected: str) -> None:
    """Control: one that is planted is seen."""
    done = subprocess.run(
        [sys.executable, "-c", planted + SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == expected
