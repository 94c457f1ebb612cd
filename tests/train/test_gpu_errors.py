"""Errors of GPUs as one line; the exceptions are torch's own classes with real texts, the GPUs imitated."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from persianmind.common.errors import (
    GpuFaultError,
    GpuMemoryError,
    MachineError,
    PersianMindError,
    RecipeError,
)
from persianmind.engine.ranks import Ranks
from persianmind.run.folder import RunFolder
from persianmind.train import command, gpu_errors
from persianmind.train.gpu_errors import named_gpu_error
from persianmind.train.run import RunRequest
from tests.model.helpers import make_recipe
from tests.support.launch import ROOT, launch
from tests.train.gpu_texts import ADVICE, MEMORY, line

torch = pytest.importorskip("torch")

SETUP = {
    "CUDA error: no kernel image is available for execution on the device": "no code for this GPU",
    "CUDA error: CUDA driver version is insufficient for CUDA runtime version": "older than this torch needs",
    "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by "
    "downloading and installing a new version": "older than this torch needs",
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
    "NumCudaDevices() that might have already set an error? Error 804: forward compatibility was attempted "
    "on non supported HW": "restart the machine",
    "No CUDA GPUs are available": "CUDA_VISIBLE_DEVICES",
    "CUDA error: invalid device ordinal": "start one rank per GPU",
}
FAULTS = {
    "CUDA error: uncorrectable ECC error encountered": "memory failed (ECC)",
    "CUDA error: device-side assert triggered": "token id beyond the vocabulary",
    "CUDA error: unspecified launch failure": "dmesg | grep Xid",
    "CUDA error: an illegal memory access was encountered": "dmesg | grep Xid",
    "CUDA error: GPU has fallen off the bus": "restart the machine",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`": "a matmul failed",
    "CUDA error: something new": "something new; the driver's log says which",
}


@pytest.mark.parametrize("text", SETUP)
def test_imitated_driver_mismatch_is_a_mistake_to_fix(text: str) -> None:
    for kind in (RuntimeError, torch.AcceleratorError):
        named = named_gpu_error(kind(text + ADVICE), make_recipe())
        assert isinstance(named, MachineError) and named.exit_code == 2
        assert SETUP[text] in line(kind(text + ADVICE))


@pytest.mark.parametrize("text", FAULTS)
def test_imitated_fault_of_a_gpu_says_what_to_look_at(text: str) -> None:
    named = named_gpu_error(torch.AcceleratorError(text + ADVICE), make_recipe())
    assert isinstance(named, GpuFaultError) and named.exit_code == 9
    assert FAULTS[text] in line(torch.AcceleratorError(text + ADVICE))


def test_imitated_missing_kernel_names_what_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_86"])
    said = line(
        torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")
    )
    assert "(compute capability 6.1; it has sm_75, sm_86)" in said


def test_the_error_that_led_to_another_is_found() -> None:
    try:
        try:
            raise torch.OutOfMemoryError(MEMORY)
        finally:
            raise ValueError("closing failed as well")
    except ValueError as error:
        assert "out of memory" in line(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Connection closed by peer [127.0.0.1]:4242"),  # gloo
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        ValueError("CUDA error: not raised by torch"),
        MemoryError(),
        RecipeError("train.micro_batch_size: CUDA out of memory"),
    ],
)
def test_control_other_errors_are_left_alone(error: Exception) -> None:
    assert named_gpu_error(error, make_recipe()) is None


def test_torch_is_not_imported_to_know_an_error() -> None:
    code = textwrap.dedent("""
        import sys
        from persianmind.train.gpu_errors import named_gpu_error
        from persianmind.recipe.loading import load_recipe
        class OutOfMemoryError(RuntimeError): pass
        class DistBackendError(RuntimeError): pass
        recipe = load_recipe("tiny")
        for error in (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
                      DistBackendError("NCCL error in: x.cpp:1, invalid usage"),
                      RuntimeError("CUDA error: no kernel image is available for execution on the device")):
            print(type(named_gpu_error(error, recipe)).__name__)
        print("torch" in sys.modules)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["GpuMemoryError", "CollectiveError", "MachineError", "False"]


def run_failing(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, error: Exception, *, claimed: bool
) -> PersianMindError:
    """`run_request`, which the launcher and Ray's workers call, with a run that fails like this."""

    def fail(*_: object) -> None:
        if claimed:
            folder.claim(make_recipe())
        raise error

    monkeypatch.setattr(command, "_check_and_run", fail)
    request = RunRequest(make_recipe(), Path("zero2.json"), folder)
    with pytest.raises(PersianMindError) as caught:
        command.run_request(request, Ranks(1, 2, 1, 2), lambda path: path)
    return caught.value


def test_imitated_failure_keeps_its_traceback_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    named = run_failing(folder, monkeypatch, torch.OutOfMemoryError(MEMORY), claimed=True)
    assert isinstance(named, GpuMemoryError)
    assert str(named).endswith(f"; traceback: {folder.path}/tracebacks/rank-1.txt")
    kept = folder.traceback(1).read_text()
    assert "Traceback (most recent call last)" in kept and "in fail" in kept and MEMORY in kept
    assert capsys.readouterr().err == ""


def test_imitated_failure_before_a_run_began_prints_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    named = run_failing(folder, monkeypatch, torch.OutOfMemoryError(MEMORY), claimed=False)
    assert str(named).endswith("; traceback: above")
    assert "in fail" in capsys.readouterr().err
    assert not folder.path.exists()


def test_control_other_errors_keep_their_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_errors, "_named", lambda error, recipe: None)
    with pytest.raises(torch.OutOfMemoryError):
        run_failing(RunFolder(tmp_path), monkeypatch, torch.OutOfMemoryError(MEMORY), claimed=True)


ENTRY = """
import os, torch
from persianmind.model.adapted import AdaptedModel
from persianmind.report.page import write_report
from persianmind.train.command import main

def fail(self, *args, **options):
    raise torch.OutOfMemoryError(os.environ["FAIL_WITH"])

if os.environ["RANK"] == "0":
    AdaptedModel.forward = fail
main(write_report)
"""


@pytest.mark.more
@pytest.mark.integration
def test_imitated_out_of_memory_on_one_of_two_ranks_ends_the_real_entry_in_one_line(tmp_path: Path) -> None:
    script, run = tmp_path / "entry.py", tmp_path / "run"
    script.write_text(ENTRY)
    flags = ("--recipe", "tiny", "--output", str(run), "train.self_tests=false")
    done = launch(*flags, ranks=2, script=script, environment={"FAIL_WITH": MEMORY})
    assert done.code == 9, done.text
    (error,) = done.errors
    assert error.startswith("persianmind: error: GPU 2 is out of memory (576.00 MiB asked for")
    assert error.endswith(f"; traceback: {run}/tracebacks/rank-0.txt")
    # The other rank may still print that gloo lost its peer before the launcher ends it.
    assert "OutOfMemoryError" not in done.text and MEMORY not in done.text
    assert MEMORY in (run / "tracebacks" / "rank-0.txt").read_text()
