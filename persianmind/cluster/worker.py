"""What runs in every Ray Train worker: find this machine's place, check the run folder, train."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
import uuid
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

from persianmind.checks.all import preflight
from persianmind.checks.device import resolve_precision
from persianmind.cluster.board import stop_predicate
from persianmind.common.errors import ClusterError, PersianMindError, RunInterruptedError, RunLockedError
from persianmind.common.log import configure_logging
from persianmind.common.paths import PROJECT_ROOT as ROOT
from persianmind.common.poll import spaced_out, wait_until
from persianmind.energy.meter.pipes import NODE_GPUS
from persianmind.engine.ranks import Ranks, TorchGroup, ranks_from_environment
from persianmind.engine.registry import backend
from persianmind.report.page import write_report
from persianmind.run.folder import RunFolder, RunLock
from persianmind.train.command import run_request
from persianmind.train.run import RunRequest, is_complete

logger = logging.getLogger(__name__)
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
# NFS servers free a dead client's locks after their lease, 90 s by default.
LOCK_WAIT_S = 120.0
LOCK_POLL_S = 2.0
# A file another machine has just made may be seen late; attributes of network folders are cached for seconds.
SHARED_WAIT_S = 15.0
SHARED_POLL_S = 0.2


def use_rays_interface() -> None:
    """Gloo and NCCL talk over the network interface that Ray reached this machine by.

    Left alone, gloo takes the address of the host's own name, which many Linux systems map to 127.0.x.x.
    """
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
            return


def prepare_worker(device: str, hang_timeout_s: float) -> None:
    """What must be set before Ray Train makes the process group. device: "cuda" or "cpu", as asked for."""
    os.environ["DS_ACCELERATOR"] = device
    use_rays_interface()
    backend().prepare_environment()
    backend().prepare_group(None, hang_timeout_s)


def _backend_class() -> Any:
    base = TorchConfig().backend_cls

    class OnRaysInterface(base):  # type: ignore[misc, valid-type]
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            device = "cuda" if backend_config.backend == "nccl" else "cpu"
            worker_group.execute(prepare_worker, device, backend_config.hang_timeout_s)
            super().on_start(worker_group, backend_config)

    return OnRaysInterface


@dataclasses.dataclass
class InterfaceTorchConfig(TorchConfig):  # type: ignore[misc]
    """TorchConfig whose process group is made over Ray's own interface."""

    hang_timeout_s: float = 1800.0

    @property
    def backend_cls(self) -> Any:
        return _backend_class()


def node_name() -> str:
    """Unique in the cluster: hosts installed from one image share a name, their addresses differ."""
    address = ray.util.get_node_ip_address()
    host = platform.node() or "node"
    return host if address.startswith("127.") else f"{host}-{address.replace(':', '_')}"


def train_worker(config: dict[str, Any]) -> None:
    """One rank of one attempt; raises what `run_request` raises.

    Raises:
        ClusterError: the workers do not see one run folder.
    """
    backend(config["request"].engine).prepare_environment()
    os.environ["PERSIANMIND_NODE"] = node_name()
    if config["cwd"] is not None:
        os.chdir(config["cwd"])
    ranks = ranks_from_environment()
    configure_logging(ranks.rank)
    request = localise(config["request"], config["root"])
    nodes = check_shared(request.folder.path, ranks)
    request = agree_precision(request, ranks)
    share_visible_gpus(ranks)
    earlier = 0
    if ranks.rank == 0:
        earlier = ray.get(config["board"].begin.remote(ranks.world_size, nodes))
        logger.info(f"attempt {earlier + 1}: {ranks.world_size} ranks on {', '.join(nodes)}")
    check_first(request, ranks)
    request = dataclasses.replace(request, stop_requested=stop_predicate(config["board"]))
    _run(request, ranks, restarted=earlier > 0)


def localise(request: RunRequest, driver_root: Path) -> RunRequest:
    """The request with files of the project pointing into this machine's copy of it."""
    path = request.engine_config
    if path.is_relative_to(driver_root):
        path = ROOT / path.relative_to(driver_root)
    return dataclasses.replace(request, engine_config=path)


def agree_precision(request: RunRequest, ranks: Ranks) -> RunRequest:
    """The request with one precision for all ranks: the one the run began with, else one that every machine
    multiplies well. All ranks together."""
    own = resolve_precision(request.recipe, request.folder)
    seen = {"precision": own.train.precision, "begun": request.folder.recipe.is_file()}
    views = TorchGroup(ranks, own=ranks.world_size > 1).all_gather(seen)
    least = "fp32" if any(view["precision"] == "fp32" for view in views) else views[0]["precision"]
    # Only rank 0's folder counts: on a network folder others may not see its recipe yet.
    chosen = views[0]["precision"] if views[0]["begun"] else least
    train = own.train.model_copy(update={"precision": chosen})
    return dataclasses.replace(request, recipe=own.model_copy(update={"train": train}))


def share_visible_gpus(ranks: Ranks) -> None:
    """Tells the meter of this node the GPUs of all its ranks, where each rank sees its own alone. All ranks
    together."""
    seen = {"node": ranks.node, "gpus": os.environ.get(VISIBLE_GPUS, "")}
    views = TorchGroup(ranks, own=ranks.world_size > 1).all_gather(seen)
    here = [one for view in views if view["node"] == ranks.node for one in view["gpus"].split(",") if one]
    if here:
        os.environ[NODE_GPUS] = ",".join(dict.fromkeys(here))


def check_first(request: RunRequest, ranks: Ranks) -> None:
    """Rank 0 checks everything and claims the run folder before another node's meter writes into it.

    Raises:
        PersianMindError: on rank 0, what is wrong; the others raise `RunInterruptedError`.
    """
    problem: PersianMindError | None = None
    if ranks.rank == 0:
        try:
            if not is_complete(request.folder, request.recipe):
                preflight(request.recipe, request.engine_config, request.folder, ranks.world_size)
                request.folder.claim(request.recipe)
        except PersianMindError as error:
            problem = error
    outcomes = TorchGroup(ranks, own=ranks.world_size > 1).all_gather(problem is None)
    if problem is not None:
        raise problem
    if not all(outcomes):
        raise RunInterruptedError("rank 0 found a mistake and says which")


def _run(request: RunRequest, ranks: Ranks, *, restarted: bool) -> None:
    if restarted and ranks.rank == 0:
        wait_for_lock(request.folder)
    run_request(request, ranks, write_report)


def wait_for_lock(folder: RunFolder) -> None:
    """Until the attempt before has left the run folder; where it has not in `LOCK_WAIT_S`, taking the lock
    will say who holds it."""
    holder: RunLockedError | None = None

    def is_free() -> bool:
        nonlocal holder
        try:
            with RunLock(folder):
                return True
        except RunLockedError as error:
            holder = error
            return False

    say = spaced_out(
        lambda waited_s: logger.info(f"waits for the attempt before, {waited_s:.0f} s ({holder})")
    )
    wait_until(is_free, timeout_s=LOCK_WAIT_S, interval_s=LOCK_POLL_S, while_waiting=say)


def check_shared(run: Path, ranks: Ranks, wait_s: float = SHARED_WAIT_S) -> list[str]:
    """All ranks together: a file that rank 0 makes in the run folder must be seen by all.

    Returns the names of the nodes, each once, in rank order.

    Raises:
        ClusterError: some node does not see it; all ranks raise, with the same words.
    """
    group = TorchGroup(ranks, own=ranks.world_size > 1)
    probe = run / f".shared-{uuid.uuid4().hex}"
    problem = None
    made = not run.exists()
    if ranks.rank == 0:
        try:
            run.mkdir(parents=True, exist_ok=True)
            probe.touch()
        except OSError as error:
            problem = f"{ranks.node}: {run} cannot be written ({error.strerror or error})"
    outcomes = group.all_gather({"probe": probe.name, "problem": problem, "run": str(run)})
    seen = outcomes[0]["problem"] is None and _appears(run / outcomes[0]["probe"], wait_s)
    views = group.all_gather({"node": ranks.node, "seen": seen})
    if ranks.rank == 0:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
            if made:
                run.rmdir()  # only an empty folder can be removed
    if outcomes[0]["problem"]:
        raise ClusterError(f"{outcomes[0]['problem']}; give an --output that every node can write")
    if blind := list(dict.fromkeys(view["node"] for view in views if not view["seen"])):
        raise ClusterError(
            f"the run folder {outcomes[0]['run']} of {views[0]['node']} is not seen by {', '.join(blind)}; "
            "put --output on storage that every node mounts at the same path (NFS)"
        )
    return list(dict.fromkeys(view["node"] for view in views))


def _appears(path: Path, wait_s: float) -> bool:
    return bool(wait_until(path.exists, timeout_s=wait_s, interval_s=SHARED_POLL_S))
