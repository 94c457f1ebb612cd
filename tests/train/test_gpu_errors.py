"""Errors of GPUs as one line; the exceptions are torch's own classes with real texts, the GPUs imitated."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import (
    CollectiveError,
    GpuFaultError,
    GpuMemoryError,
    MachineError,
    PersianMindError,
    RecipeError,
)
from persianmind.engine.ranks import Ranks
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.train import command, gpu_errors, gpu_memory
from persianmind.train.gpu_errors import named_gpu_error
from persianmind.train.run import RunRequest
from tests.model.helpers import make_recipe
from tests.support.launch import ROOT, launch

torch = pytest.importorskip("torch")

MEMORY = (
    "CUDA out of memory. Tried to allocate 576.00 MiB. GPU 2 has a total capacity of 23.64 GiB of which "
    "370.69 MiB is free. Including non-PyTorch memory, this process has 22.55 GiB memory in use. Of the "
    "allocated memory 21.89 GiB is allocated by PyTorch, and 77.08 MiB is reserved by PyTorch but "
    "unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for "
    "Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
OTHERS = MEMORY.replace("Including non", "Process 16335 has 15.34 GiB memory in use. Including non")
PIECES = MEMORY.replace("77.08 MiB is reserved", "6.08 GiB is reserved")
ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below "
    "might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with "
    "`TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)
NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, {kind} (run with NCCL_DEBUG=INFO "
    "for details), NCCL version 2.28.9\n{interpreted}\nLast error:\n{last}"
)
ROOMY: dict[str, Any] = {
    "data": {"seq_len": 2048},
    "adapter": {"rank": 16},
    "vocab": {"train_embeddings": "all"},
    "train": {"precision": "bf16", "micro_batch_size": 4, "gradient_checkpointing": "off"},
}
TIGHT: dict[str, Any] = {
    "data": {"seq_len": 512},
    "adapter": {"rank": 8},
    "train": {"precision": "bf16", "quantize": "nf4", "loss_chunk_tokens": 128},
}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)


def line(error: BaseException, recipe: Recipe | None = None) -> str:
    named = named_gpu_error(error, recipe or make_recipe(**TIGHT))
    assert named is not None
    assert len(str(named).splitlines()) == 1
    return str(named)


def test_imitated_out_of_memory_has_the_numbers_and_the_knobs_in_order_of_effect() -> None:
    said = line(torch.OutOfMemoryError(MEMORY), make_recipe(**ROOMY))
    assert said == (
        "GPU 2 is out of memory (576.00 MiB asked for, 370.69 MiB free of 23.64 GiB, 21.89 GiB allocated); "
        "what helps most first: train.micro_batch_size=1, train.gradient_checkpointing=full, "
        "train.loss_chunk_tokens=128, train.quantize=nf4, data.seq_len=1024, adapter.rank=8, "
        "vocab.train_embeddings=new; a changed recipe needs another --output"
    )


def test_imitated_out_of_memory_names_no_knob_that_is_set() -> None:
    said = line(torch.OutOfMemoryError(MEMORY))
    assert "train." not in said and "at its smallest" in said and "370.69 MiB free" in said


def test_every_knob_is_a_key_of_the_recipe_and_takes_effect() -> None:
    """Applied one after the other, the knobs lead to a recipe for which none is left."""
    recipe = make_recipe(**ROOMY)
    knobs = list(gpu_memory._knobs(recipe))
    while knobs:
        key, value = knobs[0].split("=")
        section, name = key.split(".")
        changed = {**recipe.model_dump()[section], name: int(value) if value.isdigit() else value}
        recipe = Recipe.model_validate({**recipe.model_dump(), section: changed})
        left = list(gpu_memory._knobs(recipe))
        assert left == knobs[1:] or left[0].startswith("data.seq_len")  # halved more than once
        knobs = left


def test_imitated_out_of_memory_names_other_programs_first() -> None:
    said = line(torch.OutOfMemoryError(OTHERS), make_recipe(**ROOMY))
    assert "process 16335 holds 15.34 GiB" in said
    assert "first: end the other program(s) on this GPU (pid 16335), train.micro_batch_size=1" in said


def test_imitated_fragmentation_is_named_unless_segments_expand(monkeypatch: pytest.MonkeyPatch) -> None:
    expand = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
    assert expand in line(torch.OutOfMemoryError(PIECES))
    assert expand not in line(torch.OutOfMemoryError(MEMORY))
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    assert expand not in line(torch.OutOfMemoryError(PIECES))


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory" + ADVICE),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.distributed.DistBackendError(
            NCCL.format(
                kind="unhandled cuda error",
                interpreted="ncclUnhandledCudaError: Call to CUDA function failed.",
                last="Cuda failure 2 'out of memory'",
            )
        ),
    ],
)
def test_imitated_memory_errors_without_numbers_take_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    gib = 1 << 30
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gib // 4, 24 * gib))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 22 * gib)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert line(error).startswith("GPU 1 is out of memory (0.25 GiB free of 24.00 GiB, peak 22.00 GiB); ")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert line(error).startswith("a GPU is out of memory (no numbers given); ")


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


SYSTEM = (
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error. "
)
EXCHANGES = [
    (
        "remote process exited or there was a network error",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process "
        "exiting prematurely.",
        "socketProgressOpt: Call to recv from 172.16.0.2<33759> failed : Connection reset by peer",
        "another rank ended first",
    ),
    (
        "invalid usage",
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.",
        "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device a000",
        "two ranks use one GPU",
    ),
    (
        "unhandled system error",
        SYSTEM,
        "Error while creating shared memory segment /dev/shm/nccl-x (size 9637888)",
        "docker run --shm-size",
    ),
    (
        "unhandled system error",
        SYSTEM,
        "Bootstrap : no socket interface found",
        "try, in this order: NCCL_P2P_DISABLE=1, NCCL_IB_DISABLE=1, NCCL_SOCKET_IFNAME=",
    ),
    (
        "unhandled cuda error",
        "ncclUnhandledCudaError: Call to CUDA function failed.",
        "Cuda failure 217 'peer access is not supported between these two devices'",
        "cannot exchange data directly; try, in this order: NCCL_P2P_DISABLE=1",
    ),
]


@pytest.mark.parametrize(("kind", "interpreted", "last", "words"), EXCHANGES)
def test_imitated_nccl_errors_quote_nccl_and_say_what_helps(
    monkeypatch: pytest.MonkeyPatch, kind: str, interpreted: str, last: str, words: str
) -> None:
    text = NCCL.format(kind=kind, interpreted=interpreted, last=last)
    for error in (torch.distributed.DistBackendError(text), RuntimeError(text)):
        assert isinstance(named_gpu_error(error, make_recipe()), CollectiveError)
        said = line(error)
        assert words in said and kind in said and last[:60] in said and "(version 2.28.9)" in said
        assert ("NCCL_DEBUG=INFO" in said) == ("in this order" in words)
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")  # what is set is not advised again
    assert "NCCL_P2P_DISABLE" not in line(torch.distributed.DistBackendError(text))


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

if os.environ["RANK"] == "1":
    AdaptedModel.forward = fail
main(write_report)
"""


@pytest.mark.integration
def test_imitated_out_of_memory_on_one_of_two_ranks_ends_the_real_entry_in_one_line(tmp_path: Path) -> None:
    script, run = tmp_path / "entry.py", tmp_path / "run"
    script.write_text(ENTRY)
    flags = ("--recipe", "tiny", "--output", str(run), "train.self_tests=false")
    done = launch(*flags, ranks=2, script=script, environment={"FAIL_WITH": MEMORY})
    assert done.code == 9, done.text
    assert "Traceback" not in done.text
    (error,) = done.errors
    assert error.startswith("persianmind: error: rank 1: GPU 2 is out of memory (576.00 MiB asked for")
    assert error.endswith(f"; traceback: {run}/tracebacks/rank-1.txt")
    assert MEMORY in (run / "tracebacks" / "rank-1.txt").read_text()
