"""Errors of GPUs, their driver and NCCL, each as one line with what helps. Nothing here imports torch: an
error is known by the name of its class and its text, and numbers are read where torch is loaded."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator

from persianmind.common.errors import GpuFaultError, MachineError, PersianMindError
from persianmind.common.log import print_text
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.train.gpu_memory import is_out_of_memory, memory_error
from persianmind.train.nccl_errors import is_nccl_error, nccl_error

OTHER_TORCH = "pip install torch --index-url https://download.pytorch.org/whl/cu126"
LOOK = "the driver's log says which (`sudo dmesg | grep Xid`)"

# Part of the text -> the whole line. Texts: CUDA's error strings and torch/cuda/__init__.py.
_SETUP = {
    "no kernel image is available": "this torch has no code for this GPU{gpu}: install a torch built for it "
    f"({OTHER_TORCH})",
    "driver version is insufficient": "the NVIDIA driver is older than this torch needs{torch}: update the "
    f"driver, or install a torch for an older one ({OTHER_TORCH})",
    "driver on your system is too old": "the NVIDIA driver is older than this torch needs{torch}: update the "
    f"driver, or install a torch for an older one ({OTHER_TORCH})",
    "forward compatibility was attempted": "the NVIDIA driver's kernel module and its libraries differ, as "
    "after an update: restart the machine; in a container, remove its cuda-compat package",
    "No CUDA GPUs are available": "torch sees no GPU: check CUDA_VISIBLE_DEVICES, and `nvidia-smi` for what "
    "the driver sees",
    "CUDA unknown error": "the NVIDIA driver cannot be started: check CUDA_VISIBLE_DEVICES and `nvidia-smi`; "
    "after suspend or an update of the driver restart the machine",
    "busy or unavailable": "the GPU is taken or was lost: `nvidia-smi` shows other programs and an exclusive "
    "compute mode (`nvidia-smi -c 0` ends it)",
    "invalid device ordinal": "a rank asks for a GPU that is not there: start one rank per GPU (deepspeed "
    "--num_gpus), and check CUDA_VISIBLE_DEVICES",
}
_FAULTS = {
    "uncorrectable ECC error": f"the GPU's memory failed (ECC): {LOOK}; reset the GPU, and replace it if it "
    "comes again",
    "device-side assert triggered": "a kernel refused its input, usually a token id beyond the vocabulary: "
    "run again with CUDA_LAUNCH_BLOCKING=1 to see where, and check the data (`persianmind data check`)",
    "fallen off the bus": "the GPU has fallen off the bus: power supply, power cable, riser, slot or heat; "
    f"restart the machine; {LOOK}",
    "GPU is lost": "the GPU was lost: power supply, power cable, riser, slot or heat; restart the machine; "
    f"{LOOK}",
    "launch timed out": "the driver ended a kernel that took too long: no screen may hang on this GPU",
    "CUBLAS_STATUS_EXECUTION_FAILED": f"a matmul failed on the GPU: {LOOK}; take back an overclock, lower "
    "the power limit, check power cables",
}
_LAUNCH = ("unspecified launch failure", "illegal memory access", "misaligned address", "illegal instruction")
_LAUNCH_LINE = (
    f"a kernel failed on the GPU: {LOOK}; if the same step fails again run it with CUDA_LAUNCH_BLOCKING=1, "
    "else take back an overclock, lower the power limit, check power cables"
)


def named_gpu_error(error: BaseException, recipe: Recipe) -> PersianMindError | None:
    """`error`, or one that led to it, as a named error with one line; None where no GPU is to blame."""
    for one in _chain(error):
        if isinstance(one, PersianMindError):
            return None
        if named := _named(one, recipe):
            return named
    return None


def keep_traceback(error: BaseException, folder: RunFolder, rank: int) -> str:
    """Puts the whole traceback into the run folder; returns where it is, for the line.

    Where no run was begun yet, or the disk is full, it is printed.
    """
    text = "".join(traceback.format_exception(error))
    if folder.recipe.is_file():
        path = folder.traceback(rank)
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return str(path)
    with contextlib.suppress(OSError):
        print_text(text, sys.stderr)
    return "above"


def _named(error: BaseException, recipe: Recipe) -> PersianMindError | None:
    if not isinstance(error, RuntimeError):  # all of torch's are
        return None
    text = str(error)
    if is_out_of_memory(error):
        return memory_error(error, recipe)
    if is_nccl_error(error):
        return nccl_error(error)
    for part, line in _SETUP.items():
        if part in text:
            return MachineError(line.format(gpu=_gpu(), torch=_torch()))
    if "CUDA" not in text and "CUBLAS" not in text and "GPU" not in text:
        return None
    for part, line in _FAULTS.items():
        if part in text:
            return GpuFaultError(line)
    if any(part in text for part in _LAUNCH):
        return GpuFaultError(_LAUNCH_LINE)
    return GpuFaultError(f"{_first_line(text)}; {LOOK}") if "CUDA error:" in text else None


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0][:160]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it, newest first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _gpu() -> str:
    """ " (compute capability 6.1; it has sm_75, sm_80)" where torch says so."""
    torch = sys.modules.get("torch")
    if torch is None:
        return ""
    try:
        major, minor = torch.cuda.get_device_capability()
        return f" (compute capability {major}.{minor}; it has {', '.join(torch.cuda.get_arch_list())})"
    except (RuntimeError, AssertionError):  # no driver, or a torch without CUDA
        return ""


def _torch() -> str:
    torch = sys.modules.get("torch")
    if torch is None or torch.version.cuda is None:
        return ""
    return f" ({torch.__version__}, for CUDA {torch.version.cuda})"
