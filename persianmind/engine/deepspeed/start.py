"""What must be set before torch or DeepSpeed is imported, and joining the process group."""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from persianmind.common.device.choice import FORCED, INSTEAD, VISIBLE, current_device, is_hidden
from persianmind.common.errors import MachineError
from persianmind.engine.deepspeed.devices import rank_device
from persianmind.engine.deepspeed.kernel import load_cpu_kernel
from persianmind.engine.deepspeed.launcher import remember_launchers
from persianmind.engine.deepspeed.nccl import (
    EARLY,
    LATE,
    Situation,
    describe_settings,
    interface_of,
    set_variables,
)
from persianmind.engine.deepspeed.shared_memory import forget_shared_buffer, remove_dead_buffers
from persianmind.engine.presence import Presence, presence
from persianmind.engine.ranks import Ranks, collective_timeout_s
from persianmind.engine.rendezvous import bind_rendezvous
from persianmind.engine.rollcall import PREFIX, RollCall, open_store, start_limit_s

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

logger = logging.getLogger(__name__)
# "NAME=value" -> why, of what this process has set: said once the ranks have come together.
_settings: dict[str, str] = {}


def prepare_environment() -> None:
    """What must be set before torch or DeepSpeed is imported; called first by every entry."""
    # DeepSpeed builds its CPU kernel with ninja, which lies beside this Python also when its environment
    # was not activated.
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
    if _launcher_unhid_gpus():
        os.environ[VISIBLE] = ""
    choice = current_device()
    if choice.problem is None:  # one with a problem is refused before DeepSpeed could choose by itself
        os.environ[FORCED] = choice.kind
    here = Situation(choice, Path("/"), collective_timeout_s=0.0, interface=None)
    _settings.update(set_variables(EARLY, here, os.environ))
    # torch 2.13 renamed a collective that DeepSpeed 0.19 still calls by its old name, at every step.
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor.*", category=FutureWarning)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _launcher_unhid_gpus() -> bool:
    """Whether the user hid the GPUs and DeepSpeed's launcher shows them again: it numbers its CPU ranks in
    the very variable that hides GPUs. What the user said stands in the launcher's own environment."""
    pids = remember_launchers()
    try:
        return bool(pids) and is_hidden(psutil.Process(pids[-1]).environ().get(VISIBLE))
    except psutil.Error:  # it is just ending, and ends us
        return False


def prepare_group(ranks: Ranks | None, hang_timeout_s: float) -> None:
    """What must be set before the process group is made. ranks: None where the caller chose the interface."""
    bind_rendezvous()
    interface = None if ranks is None else interface_of(ranks)
    world_size = None if ranks is None else ranks.world_size
    here = Situation(current_device(), Path("/"), collective_timeout_s(hang_timeout_s), interface, world_size)
    _settings.update(set_variables(LATE, here, os.environ))


def start_distributed(
    ranks: Ranks,
    hang_timeout_s: float = 1800.0,
    agreed: Mapping[str, str] | None = None,
    limit_s: float | None = None,
    progressed_s: Callable[[], float] = lambda: 0.0,
) -> None:
    """Joins the process group through DeepSpeed (gloo on CPU, NCCL on GPUs); safe to call once a process.

    A process started without a launcher becomes a group of one on a free loopback port.

    Args:
        agreed: what must be the same on all ranks, by recipe key.
        limit_s: how long ranks wait for one another; None: `start_limit_s`.
        progressed_s: when rank 0, which prepares the run, last made progress, as `time.monotonic` has it.

    Raises:
        MachineError: the device cannot be used, or the ranks are not set up alike.
        RankUnreachableError: some rank does not come, or its data does not.
    """
    from deepspeed.accelerator import get_accelerator

    choice = current_device().required()
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
    prepare_group(ranks, hang_timeout_s)
    if get_accelerator().device_name() == "cuda":
        _check_torch_sees_gpus()
        index = rank_device(ranks).index
        get_accelerator().set_device(index)
        os.environ["LOCAL_RANK"] = str(index)  # DeepSpeed takes it for the index of the device
    timeout = timedelta(seconds=collective_timeout_s(hang_timeout_s))
    if ranks.local_rank == 0:  # before any rank of this run makes its own
        remove_dead_buffers()
    own = presence(ranks, [str(gpu) for gpu in choice.gpus], agreed, _settings)
    if ranks.world_size == 1:
        _join(ranks, timeout, store=None)
        _log_settings([own])
    else:
        limit_s = start_limit_s(hang_timeout_s) if limit_s is None else limit_s
        _come_together(own, ranks, timeout, limit_s, progressed_s)
    forget_shared_buffer(ranks.rank)


def _come_together(
    own: Presence, ranks: Ranks, timeout: timedelta, limit_s: float, progressed_s: Callable[[], float]
) -> None:
    """The start-up exchange around the making of the group."""
    import torch.distributed
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    is_made = torch.distributed.is_initialized()  # by Ray, whose store serves as well
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun hosts the store itself
    hosts = ranks.rank == 0 and not is_made and not has_agent
    store = open_store(host=True, timeout_s=timeout.total_seconds()) if hosts else None
    call = RollCall(
        own, ranks.world_size, limit_s, patience_s=timeout.total_seconds(), progressed_s=progressed_s
    )
    everyone = call.gather()
    with call:
        if not is_made and store is None:
            store = open_store(host=False, timeout_s=timeout.total_seconds())
        _join(ranks, timeout, None if store is None else PrefixStore(f"{PREFIX}/group", store))
        _exchange_one_number(ranks.world_size)
    _log_settings(everyone)


def _join(ranks: Ranks, timeout: timedelta, store: Store | None) -> None:
    """Makes the group over a store (None: as the environment says, or not at all where it is made) and has
    DeepSpeed take it up."""
    import deepspeed
    import torch
    from deepspeed.accelerator import get_accelerator

    is_cuda = get_accelerator().device_name() == "cuda"
    backend = get_accelerator().communication_backend_name() if is_cuda else "gloo"
    if store is not None:
        options: dict[str, Any] = {"timeout": timeout, "rank": ranks.rank, "world_size": ranks.world_size}
        if is_cuda:  # as DeepSpeed does: NCCL then connects now, not at the first step
            options["device_id"] = torch.device(get_accelerator().current_device_name())
        torch.distributed.init_process_group(backend, store=store, **options)
    deepspeed.init_distributed(dist_backend=backend, timeout=timeout, verbose=False)


def _exchange_one_number(world_size: int) -> None:
    import torch
    from deepspeed.accelerator import get_accelerator

    one = torch.ones(1, device=get_accelerator().current_device_name())
    torch.distributed.all_reduce(one)
    if (total := int(one.item())) != world_size:
        raise RuntimeError(f"{world_size} ranks summed up to {total}")


def _check_torch_sees_gpus() -> None:
    """The last look: what the driver lists, torch must be able to open.

    Raises:
        MachineError: it cannot.
    """
    import torch

    if not torch.cuda.is_available():
        raise MachineError(
            f"the driver lists {current_device().reason}, but torch {torch.__version__} cannot open a GPU: "
            f"`python -c 'import torch; torch.cuda.init()'` says why{INSTEAD}"
        )


def _log_settings(everyone: Sequence[Presence]) -> None:
    """One line, and one more for every node where something else was set. Shown by rank 0 alone."""
    seen: set[str] = set()
    for one in everyone:
        line = describe_settings(one.settings)
        if line and line not in seen:
            logger.info(f"environment on {one.node}: {line}; what you set yourself stays as it is")
        seen.add(line)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
