"""The GPUs as they stand now: memory and who holds it, PCI Express, power, heat, memory errors, peers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from persianmind.checks.base import CheckContext, CheckResult
from persianmind.checks.nvidia_smi import GpuReport, query_gpus
from persianmind.common.device.choice import DeviceChoice, current_device

HELD_RATIO = 0.05  # of a GPU's memory: more than a desktop takes
NEAR_SLOWDOWN_C = 5.0
# Below this part of its default a GPU loses more than it saves: at 280 of 350 W an RTX 3090 keeps over 95%.
LOW_POWER_RATIO = 0.6
GB = 1e9


def check_gpus(context: CheckContext) -> Iterator[CheckResult]:
    """Five lines for each GPU that this process sees, one for all of them together.

    Raises:
        MachineError: the driver's program cannot be asked.
    """
    choice = current_device()
    if choice.kind == "cpu":
        yield CheckResult.ok("gpus", f"none is used: {choice.reason}")
        return
    visible = {gpu.uuid for gpu in choice.gpus}
    reports = [one for one in query_gpus() if one.uuid in visible or not visible]
    for report in reports:
        yield from gpu_findings(report)
    yield from fleet_findings(reports, choice, context.ranks)


def gpu_findings(gpu: GpuReport) -> Iterator[CheckResult]:
    """One line on each of memory, link, power, temperature and memory errors."""
    yield _memory(gpu)
    yield _link(gpu)
    yield _power(gpu)
    yield _temperature(gpu)
    yield _errors(gpu)


def fleet_findings(gpus: Iterable[GpuReport], choice: DeviceChoice, ranks: int) -> Iterator[CheckResult]:
    """How the GPUs go together."""
    reports = list(gpus)
    kinds = sorted({gpu.name for gpu in reports})
    if ranks > len(reports):
        yield CheckResult.fail(
            "gpus", f"{ranks} ranks and {len(reports)} GPUs; each rank needs one of its own: lower --ranks"
        )
    elif len(kinds) > 1:
        yield CheckResult.warn(
            "gpus",
            f"unlike GPUs ({', '.join(kinds)}): each step waits for the slowest, and the smallest memory "
            "sets train.micro_batch_size; CUDA_VISIBLE_DEVICES leaves some out",
        )
    else:
        yield CheckResult.ok("gpus", f"{len(reports)} x {', '.join(kinds)}")
    if len(reports) > 1:
        yield _peers(choice)


def _memory(gpu: GpuReport) -> CheckResult:
    name = f"gpu {gpu.index} memory"
    if gpu.total_bytes is None or gpu.free_bytes is None:
        return CheckResult.ok(name, f"{gpu}: the driver does not say")
    text = f"{gpu}: {gpu.free_bytes / GB:.1f} of {gpu.total_bytes / GB:.1f} GB free"
    if gpu.compute_mode == "Prohibited":
        return CheckResult.fail(
            name,
            f"{text}, but its compute mode is Prohibited: sudo nvidia-smi -i {gpu.index} -c DEFAULT",
        )
    known_bytes = sum(one.used_bytes or 0 for one in gpu.holders)
    # Without names: what the driver keeps for itself is part of what is not free, and not held by anyone.
    held_bytes = known_bytes if gpu.holders and known_bytes else gpu.total_bytes - gpu.free_bytes
    if held_bytes <= HELD_RATIO * gpu.total_bytes:
        return CheckResult.ok(name, text)
    return CheckResult.warn(name, f"{text}; held by {_held_by(gpu)}")


def _held_by(gpu: GpuReport) -> str:
    if not gpu.holders:
        return "processes that nvidia-smi does not list (other containers): sudo fuser -v /dev/nvidia*"
    shown = [
        f"pid {one.pid} {one.name}{'' if one.used_bytes is None else f' {one.used_bytes / GB:.1f} GB'}"
        for one in sorted(gpu.holders, key=lambda one: -(one.used_bytes or 0))
    ]
    return f"{', '.join(shown)}; end what is not needed, or leave this GPU out (CUDA_VISIBLE_DEVICES)"


def _link(gpu: GpuReport) -> CheckResult:
    name = f"gpu {gpu.index} link"
    if None in (gpu.link_width, gpu.link_width_most, gpu.link_generation, gpu.link_generation_most):
        return CheckResult.ok(name, f"{gpu}: the driver does not say (a virtual machine)")
    assert gpu.link_width is not None and gpu.link_width_most is not None  # for mypy
    assert gpu.link_generation is not None and gpu.link_generation_most is not None
    text = (
        f"{gpu}: PCIe {gpu.link_generation}.0 x{gpu.link_width} now, at most "
        f"{gpu.link_generation_most}.0 x{gpu.link_width_most}"
    )
    if gpu.link_width < gpu.link_width_most:
        return CheckResult.warn(
            name,
            f"{text}: only {gpu.link_width} of {gpu.link_width_most} lanes; seat the board and its riser "
            "again, use a slot with all lanes, and look at lane sharing (M.2, bifurcation) in the BIOS",
        )
    if gpu.board_generation is not None and gpu.link_generation_most < gpu.board_generation:
        return CheckResult.warn(
            name,
            f"{text}; the board can do {gpu.board_generation}.0: the slot, a riser or the BIOS (Gen "
            "setting) holds it down",
        )
    if gpu.link_generation < gpu.link_generation_most and gpu.is_busy:
        return CheckResult.warn(
            name, f"{text}, although its clocks are up: a riser or contact fails; seat the board again"
        )
    # An idle board lowers its generation to save power: that is not a fault.
    idle = " (idle boards lower it)" if gpu.link_generation < gpu.link_generation_most else ""
    return CheckResult.ok(name, text + idle)


def _power(gpu: GpuReport) -> CheckResult:
    name = f"gpu {gpu.index} power"
    if gpu.power_limit_w is None or gpu.default_limit_w is None:
        return CheckResult.ok(name, f"{gpu}: the driver does not say")
    text = f"{gpu}: limit {gpu.power_limit_w:.0f} W, default {gpu.default_limit_w:.0f} W"
    if gpu.power_limit_w < LOW_POWER_RATIO * gpu.default_limit_w:
        watts = round(0.8 * gpu.default_limit_w)
        return CheckResult.warn(
            name, f"{text}: far below; `sudo nvidia-smi -i {gpu.index} -pl {watts}` costs little speed"
        )
    return CheckResult.ok(name, text)


def _temperature(gpu: GpuReport) -> CheckResult:
    name = f"gpu {gpu.index} temperature"
    if gpu.temperature_c is None:
        return CheckResult.ok(name, f"{gpu}: the driver does not say")
    text = f"{gpu}: {gpu.temperature_c:.0f} C"
    if gpu.held_down_by:
        return CheckResult.warn(
            name,
            f"{text}, clocks are held down by {', '.join(gpu.held_down_by)}; air flow and dust, the power "
            "cables, or a lower limit (nvidia-smi -pl)",
        )
    if gpu.slowdown_c is not None and gpu.temperature_c >= gpu.slowdown_c - NEAR_SLOWDOWN_C:
        return CheckResult.warn(
            name, f"{text}, it slows down at {gpu.slowdown_c:.0f} C; air flow, dust, or a lower power limit"
        )
    return CheckResult.ok(name, text)


def _errors(gpu: GpuReport) -> CheckResult:
    name = f"gpu {gpu.index} ecc"
    if gpu.repair_pending:
        return CheckResult.warn(
            name,
            f"{gpu}: memory cells wait to be replaced by spare ones; end what runs on it and `sudo "
            f"nvidia-smi -i {gpu.index} --gpu-reset`, or restart",
        )
    if gpu.uncorrectable:
        return CheckResult.warn(
            name,
            f"{gpu}: {gpu.uncorrectable} memory errors that could not be corrected since the driver was "
            "loaded; restart, and have the board replaced if they come again",
        )
    if gpu.ecc is None or gpu.uncorrectable is None:
        return CheckResult.ok(name, f"{gpu}: has no error counter (consumer boards have none)")
    return CheckResult.ok(name, f"{gpu}: ECC {gpu.ecc.lower()}, no uncorrected error")


def _peers(choice: DeviceChoice) -> CheckResult:
    if choice.can_peer is None:
        return CheckResult.ok("gpu peers", "the driver does not say; NCCL asks it for each pair")
    if choice.can_peer:
        return CheckResult.ok("gpu peers", "some pair of GPUs reaches each other's memory directly")
    return CheckResult.ok(
        "gpu peers",
        "no pair reaches each other's memory (GeForce boards); gradients go through host memory, and "
        "NCCL_P2P_DISABLE=1 is set by itself",
    )
