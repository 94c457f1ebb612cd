"""The command and its target: what they refuse, and what they end with."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from persianmind.cli import app
from persianmind.common.device import choice
from persianmind.common.device.choice import DeviceChoice
from persianmind.common.errors import MachineError, UsageError
from persianmind.gpucheck import registry
from persianmind.gpucheck.registry import PARTS, choose_parts
from tests.gpucheck.faulty_parts import part
from tests.support.launch import ROOT


def check(*arguments: str) -> int:
    result = CliRunner().invoke(app, ["gpu-check", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code


def test_the_exit_code_says_whether_all_parts_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PARTS", (part("good"), part("raising"), part("not_here")))
    assert check("--small", "--out", str(tmp_path)) == 1
    assert check("--small", "--out", str(tmp_path), "--parts", "good, not_here") == 0
    assert list(json.loads((tmp_path / "report.json").read_text())["parts"]) == ["good", "not_here"]


def test_an_unknown_part_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no part 'kernel' \\(did you mean 'kernels'\\?\\)"):
        check("--small", "--parts", "kernel")


def test_without_a_gpu_the_way_to_a_small_check_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "current_device", lambda: DeviceChoice("cpu", "no NVIDIA GPU"))
    with pytest.raises(MachineError, match=r"no NVIDIA GPU; .*SMALL=1"):
        check("--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_driver_that_is_too_old_stops_the_check_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    old = DeviceChoice("cuda", "a GPU", problem="driver 470 is too old: update it")
    monkeypatch.setattr(choice, "current_device", lambda: old)
    with pytest.raises(MachineError, match="driver 470 is too old"):
        check()


def test_all_parts_fit_the_nine_minutes_and_each_function_exists() -> None:
    assert registry.WHOLE_LIMIT_S + 10 <= 540
    assert choose_parts([]) == list(PARTS) and len({one.name for one in PARTS}) == len(PARTS)
    for one in PARTS:
        module, _, name = one.function.partition(":")
        source = ROOT / f"{module.replace('.', '/')}.py"
        assert f"\ndef {name}(setting: PartSetting, findings: Findings) -> None:" in source.read_text()


@pytest.mark.parametrize(("setting", "expected"), [("SMALL=1", " --small"), ("SMALL=", "")])
def test_the_target_runs_the_command(setting: str, expected: str) -> None:
    made = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", "setup", "gpu-check", setting],
        cwd=ROOT,
        env={
            name: value
            for name, value in os.environ.items()
            if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert made.stdout.splitlines()[-1].rstrip() == f".venv/bin/persianmind gpu-check{expected}"
