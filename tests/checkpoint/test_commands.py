"""`persianmind checkpoint list|verify|inspect`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from persianmind.checkpoint.commands import _for_people, app
from persianmind.common.errors import CheckpointError, PersianMindError, RunFolderError
from tests.checkpoint.helpers import flip_bit, two_checkpoints


@pytest.fixture
def run(tmp_path: Path) -> Path:
    two_checkpoints(tmp_path / "checkpoints")
    return tmp_path


def call(*arguments: object) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exception is None or isinstance(result.exception, PersianMindError)
    return result.stdout, result.exception


def as_json(*arguments: object) -> Any:
    out, error = call(*arguments, "--json")
    assert error is None and out.count("\n") == 1
    return json.loads(out)


def test_list(run: Path) -> None:
    shown = as_json("list", run)
    assert shown["latest"] == "step-20"
    assert [(one["checkpoint"], one["step"], one["stage"]) for one in shown["checkpoints"]] == [
        ("step-20", 20, "pretrain"),
        ("step-10", 10, "pretrain"),
    ]
    assert shown["checkpoints"][0]["files"] == 3
    out, _ = call("list", run)
    assert "step-20" in out and "pretrain" in out
    (run / "checkpoints" / "step-10" / "manifest.json").write_text("{}")
    assert "is damaged" in as_json("list", run)["checkpoints"][1]["problem"]


def test_list_of_a_run_without_checkpoints(tmp_path: Path) -> None:
    assert as_json("list", tmp_path) == {"run": str(tmp_path), "latest": None, "checkpoints": []}


def test_verify(run: Path) -> None:
    assert as_json("verify", run)["whole"] is True
    flip_bit(run / "checkpoints" / "step-20" / "deepspeed/rank_0.pt", 9)
    out, error = call("verify", run, "--json")
    assert isinstance(error, CheckpointError) and error.exit_code == 5
    assert "1 of 2 checkpoints" in str(error) and "step-20" in str(error)
    shown = json.loads(out)
    assert shown["whole"] is False
    assert "deepspeed/rank_0.pt: its bytes changed" in shown["checkpoints"][0]["problems"][0]
    assert as_json("verify", run, "--checkpoint", "step-10")["whole"] is True
    out, error = call("verify", run)
    assert error is not None and "1 damaged" in out


def test_inspect(run: Path) -> None:
    shown = as_json("inspect", run)
    assert shown["checkpoint"] == "step-20" and shown["metadata"] == {"step": 20, "stage": "pretrain"}
    assert shown["contents"]["rng-rank-0.json"]["size_bytes"] == 15
    out, _ = call("inspect", run, "--checkpoint", "step-10")
    assert "metadata.stage" in out and "rng-rank-0.json" in out


@pytest.mark.parametrize("subcommand", ["list", "verify", "inspect"])
def test_errors_say_what_to_do(run: Path, subcommand: str) -> None:
    _, error = call(subcommand, run / "nowhere")
    assert isinstance(error, RunFolderError) and "give the folder that holds checkpoints/" in str(error)
    if subcommand != "list":
        _, error = call(subcommand, run, "--checkpoint", "step-7")
        assert isinstance(error, CheckpointError) and "it has: step-20, step-10" in str(error)


def test_verbs_import_nothing_heavy() -> None:
    code = (
        "import sys, persianmind.checkpoint.commands; "
        "heavy = {'torch', 'deepspeed', 'safetensors', 'psutil', 'xxhash'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_people_get_sizes_and_decimals(run: Path) -> None:
    out, _ = call("list", run)
    assert re.search(r"\d\.\d MB", out) and "size_bytes" not in out
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d ", out)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((0.1).hex(), "0.1"),
        ([(2.5).hex()] * 8, "8 values, the last 2.5"),
        ([], "none"),
        ("0123abcd", "0123abcd"),  # a hash is no number
        (7, "7"),
    ],
)
def test_what_a_manifest_records_is_said_for_people(value: object, text: str) -> None:
    assert _for_people(value) == text
