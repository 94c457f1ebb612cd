"""The Makefile's own recipe lines, run with programs that only record what they are asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.device.torch_build import INDEXES
from tests.support.launch import ROOT

RECORDER = """#!{python}
import json, os, sys
line = {{"program": os.path.basename(sys.argv[0]), "arguments": sys.argv[1:],
        "environ": {{name: value for name, value in os.environ.items() if name.startswith("DS_")}}}}
with open({record!r}, "a") as handle:
    handle.write(json.dumps(line) + "\\n")
if os.path.basename(sys.argv[0]) == "persianmind":
    sys.exit(int(os.environ.get("EXIT", "0")))
"""
# What deepspeed's setup.py asks of every op; torch sees an imitated GPU and no CUDA toolkit is there.
PROBE_OPS = """
import sys, torch, torch.utils.cpp_extension
torch.utils.cpp_extension.CUDA_HOME = None
torch.cuda.is_available, torch.cuda.device_count = (lambda: True), (lambda: 4)
torch.cuda.get_device_capability = lambda *_: (8, 6)
torch.cuda.get_device_properties = lambda *_: type("Properties", (), {"major": 8, "minor": 6})
torch.version.cuda = "13.0"
from deepspeed.ops.op_builder.all_ops import ALL_OPS
from deepspeed.ops.op_builder.builder import MissingCUDAException
assert len(ALL_OPS) > 10
try:
    for builder in ALL_OPS.values():
        builder.is_compatible()
except MissingCUDAException as error:
    sys.exit(f"MissingCUDAException: {error}")
"""


class FakeVenv:
    """A virtual environment whose programs write down how they are called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / "record.jsonl"
        (folder / "bin").mkdir(parents=True)
        for name in ("python", "persianmind"):
            program = folder / "bin" / name
            program.write_text(
                RECORDER.format(python=sys.executable, record=str(self.record)), encoding="utf-8"
            )
            program.chmod(0o755)

    def make(self, *targets: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """`make` with this environment in place of .venv."""
        self.record.write_text("", encoding="utf-8")
        command = ["make", f"VENV={self.folder}", f"PYTHON={sys.executable}", *targets]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DS_", "MAKE"))}
        return subprocess.run(command, cwd=ROOT, env={**clean, **environ}, capture_output=True, text=True)

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record.read_text(encoding="utf-8").splitlines()]

    def installs(self, package: str) -> dict[str, Any]:
        """The one call that installs it."""
        (found,) = (call for call in self.calls if call["arguments"][-1] == package)
        return found


@pytest.fixture
def venv(tmp_path: Path) -> FakeVenv:
    return FakeVenv(tmp_path / "venv")


def probe_ops(**environ: str) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if n not in ("DS_ACCELERATOR", "DS_IGNORE_CUDA_DETECTION")}
    command = [sys.executable, "-c", PROBE_OPS]
    return subprocess.run(
        command, env={**clean, **environ}, capture_output=True, text=True, cwd=ROOT, timeout=120
    )


@pytest.mark.integration
def test_setup_builds_deepspeed_on_an_imitated_gpu_without_a_toolkit(venv: FakeVenv) -> None:
    """The environment of the Makefile's line, given to the code that refuses to build without it."""
    done = venv.make("setup")
    assert done.returncode == 0, done.stderr
    call = venv.installs("deepspeed")
    assert "--no-build-isolation" in call["arguments"]
    assert call["environ"] == {"DS_BUILD_OPS": "0", "DS_IGNORE_CUDA_DETECTION": "1"}
    probed = probe_ops(**call["environ"])
    assert probed.returncode == 0, probed.stderr


@pytest.mark.integration
def test_control_without_the_variable_the_imitated_gpu_stops_the_build() -> None:
    probed = probe_ops(DS_BUILD_OPS="0")
    assert probed.returncode == 1 and "MissingCUDAException: CUDA_HOME does not exist" in probed.stderr


def test_torch_comes_from_another_index_and_a_later_make_does_not_ask_again(venv: FakeVenv) -> None:
    assert venv.make("setup").returncode == 0
    assert "--extra-index-url" not in venv.installs("torch==2.13.0")["arguments"]
    assert not any("uninstall" in call["arguments"] for call in venv.calls)
    index = INDEXES[-1][0]
    assert venv.make("setup", f"TORCH_INDEX={index}").returncode == 0
    call = venv.installs("torch==2.13.0")
    assert call["arguments"][-3:-1] == ["--extra-index-url", index]
    assert any(call["arguments"][:3] == ["-m", "pip", "uninstall"] for call in venv.calls)
    for again in ((f"TORCH_INDEX={index}/",), ()):
        assert venv.make("setup", *again).returncode == 0 and venv.calls == []


def test_transformers_4_goes_into_a_folder_of_its_own_once_and_not_for_the_demo(venv: FakeVenv) -> None:
    def installs() -> list[list[str]]:
        return [call["arguments"] for call in venv.calls if "transformers==4.57.6" in call["arguments"]]

    assert venv.make("demo").returncode == 0 and installs() == []
    assert venv.make("setup").returncode == 0
    (arguments,) = installs()
    assert arguments[arguments.index("--target") + 1] == f"{venv.folder}/transformers4"
    assert "--no-deps" in arguments and "constraints.txt" not in arguments
    assert venv.make("setup").returncode == 0 and venv.calls == []


def test_the_demo_is_the_one_door_and_its_failure_is_the_targets(venv: FakeVenv) -> None:
    assert venv.make("demo").returncode == 0
    call = venv.calls[-1]
    assert (call["program"], call["arguments"]) == ("persianmind", ["train", "demo"])
    assert venv.make("demo", EXIT="2").returncode != 0
