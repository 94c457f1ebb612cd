"""Which device trains, and why. No test here has a GPU: files, driver and torch's build are imitated."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from persianmind.common.device import choice, problems
from persianmind.common.device.choice import DeviceChoice, decide_device, is_hidden
from persianmind.common.device.nvml import read_inventory
from persianmind.common.device.torch_build import TorchBuild, parse_torch_version, read_torch_build
from persianmind.common.errors import MachineError
from tests.support.gpus import (
    CUDA_12,
    CUDA_13,
    GTX_1080,
    NVML_FUNCTIONS,
    RTX_2080,
    RTX_3090,
    RTX_5090,
    Machine,
    decide_imitated,
)
from tests.support.launch import ROOT

FOUR = Machine([RTX_3090] * 4)
VERSION_PY = """from typing import Optional
__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']
__version__ = '2.13.0+cu126'
debug = False
cuda: Optional[str] = '12.6'
hip: Optional[str] = None
"""


def test_a_machine_without_a_gpu_trains_on_the_cpu(tmp_path: Path) -> None:
    found = decide_device(tmp_path, {})
    assert (found.kind, found.count, found.reason) == ("cpu", 0, "no NVIDIA GPU on this machine")
    assert found.required() is found


def test_imitated_gpus_are_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decide_imitated(monkeypatch, tmp_path, FOUR)
    assert (found.kind, found.count, found.driver, found.problem) == ("cuda", 4, "580.65.06", None)
    assert found.names == (RTX_3090[0],) * 4 and found.capabilities == ((8, 6),) * 4
    assert found.reason == "4 x NVIDIA GeForce RTX 3090 (capability 8.6), driver 580.65.06"


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", " ", "-1,0"])
def test_imitated_gpus_that_are_hidden_are_not_used_and_the_reason_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    assert is_hidden(visible)
    found = decide_imitated(monkeypatch, tmp_path, FOUR, CUDA_VISIBLE_DEVICES=visible)
    assert found.kind == "cpu" and f'CUDA_VISIBLE_DEVICES="{visible}" hides' in found.reason


@pytest.mark.parametrize(
    ("visible", "indices"),
    [("2,0", [2, 0]), ("1", [1]), ("0,-1,2", [0]), ("GPU-33", [3]), ("3,9,1", [3]), ("MIG-1/2/3", [0])],
)
def test_imitated_gpus_are_those_that_cuda_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, indices: list[int]
) -> None:
    found = decide_imitated(monkeypatch, tmp_path, FOUR, CUDA_VISIBLE_DEVICES=visible)
    assert [gpu.index for gpu in found.gpus] == indices and found.count == len(indices)


REFUSED: dict[str, tuple[Machine, TorchBuild | None, str]] = {
    "torch for the CPU": (
        FOUR,
        TorchBuild("2.13.0+cpu", None),
        r"built for the CPU alone: `make setup",
    ),
    "torch for AMD": (FOUR, TorchBuild("2.13.0+rocm7", None, is_rocm=True), r"built for AMD GPUs"),
    "driver 550, CUDA 13": (
        Machine([RTX_3090], driver="550.54.14"),
        CUDA_13,
        r"driver 550\.54\.14 is too old for torch 2\.13\.0, whose CUDA 13\.0 needs 580 or newer: update the "
        r"driver to 580 or newer, or `make setup TORCH_INDEX=https://download.pytorch.org/whl/cu126`",
    ),
    "driver 470, CUDA 12": (
        Machine([RTX_3090], driver="470.256.02"),
        CUDA_12,
        r"CUDA 12\.6 needs 525 or newer: update the driver to 580 or newer; CUDA",
    ),
    "an old GPU": (Machine([GTX_1080]), CUDA_12, r"GPU 0 \(GTX 1080\) has compute capability 6\.1: 7\.5"),
    "an old GPU for the display": (
        Machine([RTX_3090, GTX_1080, RTX_3090]),
        CUDA_13,
        r"GPU 1 \(GTX 1080\).*CUDA_VISIBLE_DEVICES=0,2 leaves it out",
    ),
    "a GPU newer than torch": (
        Machine([RTX_5090]),
        CUDA_12,
        r"12\.0: newer than the CUDA.*TORCH_INDEX=.*cu130",
    ),
    "driver and library differ": (
        Machine([RTX_3090], init_error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH),
        CUDA_13,
        r"restart the machine",
    ),
    "no right to open the GPUs": (
        Machine([RTX_3090], init_error=pynvml.NVML_ERROR_NO_PERMISSION),
        CUDA_13,
        r"cannot be used \(Insufficient Permissions\)",
    ),
    "files without GPUs": (Machine([], device_files=2), CUDA_13, r"driver lists no GPU"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_imitated_gpus_that_cannot_be_used_are_one_line_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    machine, build, expected = REFUSED[case]
    found = decide_imitated(monkeypatch, tmp_path, machine, build)
    with pytest.raises(MachineError, match=expected) as raised:
        found.required()
    line = str(raised.value)
    assert "\n" not in line and line.endswith('; CUDA_VISIBLE_DEVICES="" trains on the CPU instead')
    assert found.kind == "cuda"  # never the CPU in silence


@pytest.mark.parametrize("case", ["torch for the CPU", "driver 550, CUDA 13", "an old GPU"])
def test_control_without_the_rules_the_imitated_gpus_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    for rule in ("driver_problem", "build_problem", "gpu_problem"):
        monkeypatch.setattr(choice, rule, lambda *_: None)
    assert decide_imitated(monkeypatch, tmp_path, *REFUSED[case][:2]).problem is None


@pytest.mark.parametrize(
    ("driver", "build"),
    [("580.65.06", CUDA_13), ("595.10", CUDA_13), ("525.60.13", CUDA_12), ("550.54.14", CUDA_12)],
)
def test_imitated_drivers_at_the_boundary_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, build: TorchBuild
) -> None:
    assert decide_imitated(monkeypatch, tmp_path, Machine([RTX_2080], driver), build).problem is None


def test_imitated_wsl2_is_a_gpu_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decide_imitated(monkeypatch, tmp_path / "a", Machine([RTX_3090], wsl=True))
    assert (found.kind, found.count, found.is_wsl, found.problem) == ("cuda", 1, True, None)
    # Control: /dev/dxg is there for the GPUs of other makers too.
    root = Machine([RTX_3090], wsl=True).write_root(tmp_path / "b")
    (root / "usr/lib/wsl/lib/libcuda.so.1").unlink()
    assert decide_device(root, {}).kind == "cpu"


def test_imitated_container_without_the_library_knows_the_driver_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine([RTX_3090] * 2, "550.54.14", init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    found = decide_imitated(monkeypatch, tmp_path / "a", machine, CUDA_12)
    assert (found.kind, found.count, found.gpus, found.driver) == ("cuda", 2, (), "550.54.14")
    assert found.problem is None and "of unknown kind" in found.reason
    assert "too old" in str(decide_imitated(monkeypatch, tmp_path / "b", machine, CUDA_13).problem)


@pytest.mark.parametrize(
    ("forced", "visible", "kind", "expected"),
    [
        ("cpu", "0", "cpu", "DS_ACCELERATOR=cpu asks for it"),
        ("cuda", "", "cuda", "hides every GPU"),
        ("xpu", "0", "cuda", "knows cpu and cuda"),
    ],
)
def test_imitated_gpus_and_a_forced_accelerator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forced: str, visible: str, kind: str, expected: str
) -> None:
    names = {"DS_ACCELERATOR": forced, "CUDA_VISIBLE_DEVICES": visible}
    found = decide_imitated(monkeypatch, tmp_path, FOUR, **names)
    assert found.kind == kind and expected in (found.problem or found.reason)


def test_a_forced_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="there is no NVIDIA GPU here"):
        decide_device(tmp_path, {"DS_ACCELERATOR": "cuda"}).required()


def test_imitated_choice_of_no_gpu_at_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decide_imitated(monkeypatch, tmp_path, FOUR, CUDA_VISIBLE_DEVICES="7")
    assert 'CUDA_VISIBLE_DEVICES="7" names no GPU of this machine (it has 0, 1, 2, 3)' in str(found.problem)


def test_the_imitated_library_has_the_real_ones_call_surface() -> None:
    fake = Machine().nvml()
    for name in NVML_FUNCTIONS:
        ours, real = (list(inspect.signature(getattr(one, name)).parameters) for one in (fake, pynvml))
        assert ours == real, name


def test_imitated_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVLink between two of four, nothing between the others; and what an unknown status comes to."""
    link, read = pynvml.NVML_P2P_CAPS_INDEX_NVLINK, pynvml.NVML_P2P_CAPS_INDEX_READ
    cases = [
        (Machine([RTX_3090] * 4), False),
        (Machine([RTX_3090] * 4, peers={(link, 0, 1): pynvml.NVML_P2P_STATUS_OK}), True),
        (Machine([RTX_3090] * 2, peers={(read, 0, 1): pynvml.NVML_P2P_STATUS_OK}), True),
        (Machine([RTX_3090] * 2, peers={(read, 0, 1): pynvml.NVML_P2P_STATUS_UNKNOWN}), None),
        (Machine([RTX_3090] * 3, peers={(read, 1, 2): -1}), None),
        (Machine([RTX_3090]), None),
    ]
    for machine, expected in cases:
        monkeypatch.setitem(sys.modules, "pynvml", machine.nvml())
        assert read_inventory().can_peer is expected, machine


def test_the_build_is_read_from_torchs_own_file() -> None:
    """Without importing it; a witness that has imported it says the same."""
    code = "import torch; print(torch.__version__, torch.version.cuda)"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    build = read_torch_build()
    assert build is not None
    cuda = ".".join(map(str, build.cuda)) if build.cuda else "None"
    assert [build.version, cuda] == said
    assert parse_torch_version(VERSION_PY) == CUDA_12
    assert parse_torch_version("x = 1") is None
    rocm = parse_torch_version("__version__ = 'a'\ncuda = None\nhip = '7.0'")
    assert rocm is not None and rocm.is_rocm


def test_the_decision_imports_no_torch() -> None:
    code = (
        "import sys; from persianmind.common.device.choice import current_device; current_device(); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "deepspeed", "transformers"} & set(done.stdout.split())


def test_no_other_place_looks_for_gpus_by_itself() -> None:
    """The one function decides: device files are named in its package alone, and in no script."""
    files = [*(ROOT / "persianmind").rglob("*.py"), ROOT / "Makefile", *(ROOT / "launcher").rglob("*.py")]
    named = {
        str(path.relative_to(ROOT)) for path in files if "nvidia[0-9]" in path.read_text(encoding="utf-8")
    }
    assert named == {"persianmind/common/device/files.py"}
    assert problems.OLDEST_CAPABILITY == (7, 5) and DeviceChoice("cpu", "").problem is None
