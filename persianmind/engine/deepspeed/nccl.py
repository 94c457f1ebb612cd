"""The environment of CUDA, NCCL and gloo: what is set where the user has not set it, and why.

NCCL reads its variables when the first communicator is made, CUDA and torch's allocator when CUDA starts; the
group's own (TORCH_NCCL_...) are read when the process group is made.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from persianmind.common.device.choice import DeviceChoice
from persianmind.engine.ranks import Ranks

INFINIBAND = Path("sys/class/infiniband")
DISCARD_PORT = 9  # nothing is sent to it: connecting a UDP socket only asks the system for its route


@dataclass(frozen=True, slots=True)
class Situation:
    """What the values depend on. root: stands for /. interface: None where it is not needed or not known.
    world_size: None where it is not known yet."""

    device: DeviceChoice
    root: Path
    collective_timeout_s: float
    interface: str | None
    world_size: int | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable. value: None where it does not apply. unless: variables that say the same already."""

    name: str
    value: Callable[[Situation], str | None]
    why: str
    unless: tuple[str, ...] = ()
    gpu_only: bool = True


def _no_peer(here: Situation) -> str | None:
    # Unknown is left to NCCL, which asks the driver for each pair: switched off here, an NVLink bridge would
    # lie idle. Known to be impossible it is switched off, as some boards hang while NCCL tries.
    return "1" if here.device.can_peer is False else None


def _no_infiniband(here: Situation) -> str | None:
    folder = here.root / INFINIBAND
    return None if folder.is_dir() and any(folder.iterdir()) else "1"


def _expandable(here: Situation) -> str | None:
    return None if here.device.is_wsl else "expandable_segments:True"


def _one_channel(here: Situation) -> str | None:
    # A communicator of one rank takes all 64 channels, 6 MiB each, and DeepSpeed makes two.
    return "1" if here.world_size == 1 else None


def _timeout(here: Situation) -> str:
    return str(round(here.collective_timeout_s))


# Before CUDA starts. CUBLAS_WORKSPACE_CONFIG is read once too, and without it cuBLAS is not deterministic.
EARLY = (
    Setting("CUDA_DEVICE_ORDER", lambda _: "PCI_BUS_ID", "GPUs are numbered as nvidia-smi numbers them"),
    Setting("CUBLAS_WORKSPACE_CONFIG", lambda _: ":4096:8", "cuBLAS is deterministic only with it"),
    Setting(
        "PYTORCH_ALLOC_CONF",
        _expandable,
        "less memory lost to fragments of sequences of unequal size",
        unless=("PYTORCH_CUDA_ALLOC_CONF",),
    ),
    Setting("NCCL_P2P_DISABLE", _no_peer, "the driver says that no two of these GPUs reach each other"),
    Setting("NCCL_IB_DISABLE", _no_infiniband, "there is no InfiniBand device"),
)
# Before the process group is made.
LATE = (
    Setting("NCCL_SOCKET_IFNAME", lambda here: here.interface, "the interface towards rank 0"),
    Setting(
        "GLOO_SOCKET_IFNAME", lambda here: here.interface, "the interface towards rank 0", gpu_only=False
    ),
    # 3: a collective that is over its time ends the process, instead of blocking the host in every wait.
    Setting(
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        lambda _: "3",
        "a collective over its time ends the process",
        unless=("TORCH_NCCL_BLOCKING_WAIT", "NCCL_BLOCKING_WAIT", "NCCL_ASYNC_ERROR_HANDLING"),
    ),
    Setting(
        "NCCL_MAX_NCHANNELS",
        _one_channel,
        "one rank sends nothing, and 63 channels less are 0.7 GiB of GPU memory",
        unless=("NCCL_MAX_CTAS", "NCCL_MIN_NCHANNELS", "NCCL_MIN_CTAS"),
    ),
    # Left at its 480 s it would end the process before our watchdog has named the rank that hangs.
    Setting("TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", _timeout, "after train.hang_timeout_s, which says more"),
)


def set_variables(
    settings: tuple[Setting, ...], here: Situation, environ: MutableMapping[str, str]
) -> dict[str, str]:
    """Sets what applies and nobody has set; returns "NAME=value" -> why."""
    done: dict[str, str] = {}
    for one in settings:
        value = one.value(here) if here.device.kind == "cuda" or not one.gpu_only else None
        if value is None or any(name in environ for name in (one.name, *one.unless)):
            continue
        environ[one.name] = value
        done[f"{one.name}={value}"] = one.why
    return done


def describe_settings(settings: Mapping[str, str]) -> str:
    """One line for the log."""
    return ", ".join(f"{name} ({why})" for name, why in settings.items())


def interface_towards(address: str) -> str | None:
    """The network interface by which this machine reaches another, or has the address itself.

    None where it cannot be derived: the name is unknown, or leads to the loopback interface, which no other
    machine reaches.
    """
    try:
        found = socket.getaddrinfo(address, DISCARD_PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[4])
            ours = str(probe.getsockname()[0])
    except OSError:
        return None
    stats = psutil.net_if_stats()
    for name, addresses in psutil.net_if_addrs().items():
        is_loopback = name in stats and "loopback" in stats[name].flags.split(",")
        if not is_loopback and any(one.address == ours for one in addresses):
            return str(name)
    return None


def interface_of(ranks: Ranks) -> str | None:
    """The interface where there are several nodes."""
    address = os.environ.get("MASTER_ADDR")
    if address is None or ranks.local_size == ranks.world_size:
        return None
    return interface_towards(address)
