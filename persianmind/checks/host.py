"""The host: memory and swap, shared memory, and the limits of a process."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from persianmind.checks.base import CheckContext, CheckResult
from persianmind.checks.device import has_gpu
from persianmind.model.base_files import weight_files

GB = 1e9
# A rank's own libraries and buffers on the host: torch, CUDA and DeepSpeed take 0.5 to 1.5 GB.
RANK_BYTES = 2_000_000_000
# NCCL's documentation starts containers with --shm-size=1g; DeepSpeed's CPU kernel takes 67 MB per rank.
SHARED_BYTES_GPU, SHARED_BYTES_PER_CPU_RANK = 1_000_000_000, 70_000_000
OPEN_FILES = 1024  # shards (128 at a time), sockets between ranks, weights
LOCKED_BYTES = 64 << 20
SWAPPED_RATIO, SCARCE_RATIO = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class HostState:
    """What is looked at. open_files, locked_bytes: soft limits, None: unlimited. shared_bytes: free in
    /dev/shm, None where there is none."""

    total_bytes: int
    available_bytes: int
    swap_bytes: int
    swap_used_bytes: int
    shared_bytes: int | None
    open_files: int | None
    locked_bytes: int | None
    has_infiniband: bool
    has_gpu: bool


def check_host(context: CheckContext) -> Iterator[CheckResult]:
    """Memory, swap, /dev/shm, open files, locked memory."""
    yield from host_findings(read_host(Path("/")), context.ranks, _base_bytes(context))


def read_host(root: Path) -> HostState:
    """This machine's, or this container's where that is less. root: stands for / with /dev/shm and /sys."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    total, available = int(memory.total), int(memory.available)
    if (limit := _container_limit(root)) is not None:
        total, available = min(total, limit[0]), min(available, limit[1])
    infiniband = root / "sys/class/infiniband"
    return HostState(
        total_bytes=total,
        available_bytes=available,
        swap_bytes=int(swap.total),
        swap_used_bytes=int(swap.used),
        shared_bytes=_free(root / "dev/shm"),
        open_files=_soft_limit(resource.RLIMIT_NOFILE),
        locked_bytes=_soft_limit(resource.RLIMIT_MEMLOCK),
        has_infiniband=infiniband.is_dir() and any(infiniband.iterdir()),
        has_gpu=has_gpu(),
    )


def host_findings(host: HostState, ranks: int, base_bytes: int | None) -> Iterator[CheckResult]:
    """One line on each. base_bytes: of the weights that every CPU rank holds itself, None where unknown."""
    yield _memory(host, ranks, base_bytes)
    yield _swap(host)
    yield _shared(host, ranks)
    yield _open_files(host)
    yield _locked(host)


def _memory(host: HostState, ranks: int, base_bytes: int | None) -> CheckResult:
    needed = ranks * RANK_BYTES + (0 if host.has_gpu else ranks * (base_bytes or 0))
    text = f"{host.available_bytes / GB:.1f} of {host.total_bytes / GB:.1f} GB available"
    if host.available_bytes >= needed:
        return CheckResult.ok("host memory", text)
    return CheckResult.warn(
        "host memory",
        f"{text}; {ranks} ranks take about {needed / GB:.1f} GB on the host: end other programs, use fewer "
        "ranks, or raise the container's limit",
    )


def _swap(host: HostState) -> CheckResult:
    text = f"{host.swap_used_bytes / GB:.1f} of {host.swap_bytes / GB:.1f} GB used"
    swapping = host.swap_used_bytes > SWAPPED_RATIO * host.swap_bytes > 0
    if swapping and host.available_bytes < SCARCE_RATIO * host.total_bytes:
        return CheckResult.warn(
            "swap", f"{text} and little memory left: this machine is swapping; end other programs"
        )
    return CheckResult.ok("swap", text if host.swap_bytes else "none")


def _shared(host: HostState, ranks: int) -> CheckResult:
    needed = SHARED_BYTES_GPU if host.has_gpu else ranks * SHARED_BYTES_PER_CPU_RANK
    if host.shared_bytes is None:
        return CheckResult.warn(
            "shared memory", "there is no /dev/shm: ranks of one machine exchange through it; mount a tmpfs"
        )
    text = f"{host.shared_bytes / GB:.2f} GB free in /dev/shm"
    if ranks == 1 or host.shared_bytes >= needed:
        return CheckResult.ok("shared memory", text)
    return CheckResult.warn(
        "shared memory",
        f"{text}, {needed / GB:.2f} GB are wanted between ranks; containers: --shm-size=1g or --ipc=host; "
        "else delete what killed runs left there, or `mount -o remount,size=2g /dev/shm`",
    )


def _open_files(host: HostState) -> CheckResult:
    if host.open_files is None or host.open_files >= OPEN_FILES:
        limit = "no limit" if host.open_files is None else f"at most {host.open_files:,}"
        return CheckResult.ok("open files", limit)
    return CheckResult.warn(
        "open files", f"at most {host.open_files}, {OPEN_FILES} are wanted: `ulimit -n 65536` before the run"
    )


def _locked(host: HostState) -> CheckResult:
    if host.locked_bytes is None:
        return CheckResult.ok("locked memory", "no limit")
    text = f"at most {host.locked_bytes / (1 << 20):.0f} MiB"
    # CUDA pins its own memory through the driver; InfiniBand's registration is what the limit stops.
    if host.has_infiniband and host.locked_bytes < LOCKED_BYTES:
        return CheckResult.warn(
            "locked memory",
            f"{text}, and there is an InfiniBand device: NCCL cannot register its buffers; `ulimit -l "
            "unlimited` (containers: --ulimit memlock=-1), or NCCL_IB_DISABLE=1",
        )
    return CheckResult.ok("locked memory", text)


def _base_bytes(context: CheckContext) -> int | None:
    folder = Path(context.recipe.base) if context.recipe is not None else None
    if folder is None or not folder.is_dir():
        return None
    return sum(path.stat().st_size for path in weight_files(folder))


def _container_limit(root: Path) -> tuple[int, int] | None:
    """(limit, what is left of it) of a control group, version 2; None where there is none."""
    try:
        limit = (root / "sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int((root / "sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        return None if limit == "max" else (int(limit), max(0, int(limit) - used))
    except (OSError, ValueError):
        return None


def _free(folder: Path) -> int | None:
    if not folder.is_dir():
        return None
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _soft_limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft
