"""`persianmind evaluate` as it is typed: a folder, a run, two models, two ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.small_model import base
from tests.evaluate.test_session import ROWS
from tests.support.launch import Launched

pytestmark = pytest.mark.integration


def run(*arguments: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "persianmind"]
    if ranks > 1:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc-per-node={ranks}",
            "-m",
            "persianmind",
        ]
    return subprocess.run(
        [*command, "evaluate", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def results(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return found


def test_a_folder_as_json_and_on_two_ranks(suite: Path, tmp_path: Path) -> None:
    alone = results(run(str(base()), "--suite", str(suite), "--json"))
    both = run(str(base()), "--suite", str(suite), "--out", str(tmp_path / "out"), ranks=2)
    assert both.returncode == 0, both.stderr[-3000:]
    assert both.stdout.count("evaluate sums/sums: ") == 1  # one rank speaks
    kept = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["results"]
    assert [one["value"] for one in kept] == [one["value"] for one in alone]
    assert all(one["joules"] is not None for one in kept) and alone[0]["joules"] is None
    assert len((tmp_path / "out" / "items" / "sums" / "sums.jsonl").read_text().splitlines()) == 1 + len(ROWS)


def test_a_run_against_its_export(tiny_run: Launched, suite: Path) -> None:
    """The last checkpoint and what was exported of it are the same model: nothing tells them apart."""
    found = results(
        run(str(tiny_run.run), "--against", str(tiny_run.run / "export"), "--suite", str(suite), "--json")
    )
    against = found[0]["against"]
    assert against["difference"] == 0 and against["p_value"] == 1.0
    assert found[0]["settings"]["contaminated_items"] == 0  # a run's own shards were looked into


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "neither a model folder"),
        (["BASE", "--suite", "belebel"], "did you mean 'belebele'"),
        (["BASE", "--few-shot", "2"], "--few-shot needs --suite"),
        (["BASE", "--checkpoint", "3", "--suite", "health"], "--checkpoint is for a run"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(*[str(base()) if one == "BASE" else one for one in arguments])
    lines = [line for line in done.stderr.splitlines() if line.startswith("persianmind: error")]
    assert done.returncode == 2 and len(lines) == 1 and message in lines[0]
