"""What must be set before torch or DeepSpeed is imported, and joining the process group."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from datetime import timedelta
from pathlib import Path

from persianmind.engine.deepspeed.devices import rank_device
from persianmind.engine.deepspeed.kernel import load_cpu_kernel
from persianmind.engine.ranks import Ranks

# Collectives give up this long after the watchdog (train/callbacks/watchdog.py), which says more.
COLLECTIVE_SLACK_S = 300.0
SHARED_MEMORY = Path("/dev/shm")


def prepare_environment() -> None:
    """What must be set before torch or DeepSpeed is imported; called first by every entry."""
    # DeepSpeed builds its CPU kernel with ninja, which lies beside this Python also when its environment
    # was not activated.
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # torch 2.13 renamed a collective that DeepSpeed 0.19 still calls by its old name, at every step.
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor.*", category=FutureWarning)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def start_distributed(ranks: Ranks, hang_timeout_s: float = 1800.0) -> None:
    """Joins the process group through DeepSpeed (gloo on CPU, NCCL on GPUs); safe to call once a process.

    A process started without a launcher becomes a group of one on a free loopback port.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    # DeepSpeed's CPU kernel exchanges gradients through shared memory when this equals the world size, and
    # takes an unset variable to mean that all ranks share one machine.
    os.environ["LOCAL_SIZE"] = str(ranks.local_size)
    load_cpu_kernel()  # before a port is chosen: in the seconds this can take, another would take it
    defaults = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    for key, value in defaults.items():
        os.environ.setdefault(key, value)
    if get_accelerator().device_name() == "cuda":
        # Consumer GPUs have no PCIe peer-to-peer; NCCL probing for it hangs some boards.
        os.environ.setdefault("NCCL_P2P_DISABLE", "1")
        index = rank_device(ranks).index
        get_accelerator().set_device(index)
        os.environ["LOCAL_RANK"] = str(index)  # DeepSpeed takes it for the index of the device
    deepspeed.init_distributed(
        dist_backend=get_accelerator().communication_backend_name()
        if get_accelerator().device_name() == "cuda"
        else "gloo",
        timeout=timedelta(seconds=hang_timeout_s + COLLECTIVE_SLACK_S),
        verbose=False,
    )
    forget_shared_buffer(ranks.rank)


def forget_shared_buffer(rank: int) -> None:
    """Takes the name of this rank's buffer of DeepSpeed's CPU kernel away once every rank has it mapped.

    DeepSpeed itself would do so at a clean exit alone: each killed process would leave 67 MB of memory taken
    until the machine restarts.
    """
    import torch.distributed

    torch.distributed.barrier()
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    name = f"deepspeed_allreduce_buffer_{os.getuid()}_{address}_{port}_{rank}"
    (SHARED_MEMORY / name).unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
