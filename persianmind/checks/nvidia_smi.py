"""What `nvidia-smi -q -x` says of each GPU. Drivers differ: what one does not say is None.

The names of the elements are those of NVIDIA's nvsmi_device_v10 to v13 documents.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from xml.etree import ElementTree

from persianmind.common.errors import MachineError

QUERY = ("nvidia-smi", "-q", "-x")
TIMEOUT_S = 30.0
MIB = 1 << 20
# Why clocks are held down, by the end of the element's name.
SLOWDOWNS = {
    "hw_thermal_slowdown": "heat",
    "sw_thermal_slowdown": "heat",
    "hw_power_brake_slowdown": "the power supply's brake signal",
    "hw_slowdown": "a hardware slowdown",
}


@dataclass(frozen=True, slots=True)
class GpuHolder:
    """A process that holds memory of a GPU."""

    pid: int
    name: str
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuReport:
    """One GPU.

    link_generation, link_width: of PCI Express, now; ..._most: what board and slot can do together;
    board_generation: what the board can. is_busy: its clocks are up (P0 to P2). held_down_by: reasons.
    uncorrectable: memory errors since the driver was loaded; repair_pending: waits for a reset.
    """

    index: int
    name: str
    uuid: str
    total_bytes: int | None
    free_bytes: int | None
    holders: tuple[GpuHolder, ...]
    link_generation: int | None
    link_generation_most: int | None
    board_generation: int | None
    link_width: int | None
    link_width_most: int | None
    is_busy: bool
    power_limit_w: float | None
    default_limit_w: float | None
    temperature_c: float | None
    slowdown_c: float | None
    held_down_by: tuple[str, ...]
    ecc: str | None
    uncorrectable: int | None
    repair_pending: bool
    compute_mode: str | None

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})"


def query_gpus() -> list[GpuReport]:
    """Asks the driver's own program.

    Raises:
        MachineError: it is not here, fails, or does not answer in time.
    """
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        return parse_smi(done.stdout)
    except FileNotFoundError:
        raise MachineError(
            "nvidia-smi is not here, so memory, links, power and heat of the GPUs are not known; install the "
            "driver's utilities (in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        ) from None
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"nvidia-smi does not answer within {TIMEOUT_S:.0f} s; a GPU hangs: `sudo dmesg | grep Xid`"
        ) from None
    except (subprocess.CalledProcessError, ElementTree.ParseError) as error:
        raise MachineError(f"nvidia-smi fails ({error}); it must work first: run it by hand") from None


def parse_smi(text: str) -> list[GpuReport]:
    """The GPUs of one document, in its order.

    Raises:
        ElementTree.ParseError: it is no XML.
    """
    root = ElementTree.fromstring(text)
    return [_report(index, gpu) for index, gpu in enumerate(root.iter("gpu"))]


def _report(index: int, gpu: ElementTree.Element) -> GpuReport:
    link = "pci/pci_gpu_link_info/"
    board = _number(gpu, link + "pcie_gen/max_device_link_gen")
    most = _number(gpu, link + "pcie_gen/max_link_gen")
    power = ("gpu_power_readings", "power_readings")
    return GpuReport(
        index=index,
        name=_text(gpu, "product_name") or "unknown",
        uuid=_text(gpu, "uuid") or "",
        total_bytes=_bytes(gpu, "fb_memory_usage/total"),
        free_bytes=_bytes(gpu, "fb_memory_usage/free"),
        holders=tuple(_holders(gpu)),
        link_generation=_whole(_number(gpu, link + "pcie_gen/current_link_gen")),
        link_generation_most=_whole(most),
        board_generation=_whole(most if board is None else board),
        link_width=_whole(_number(gpu, link + "link_widths/current_link_width")),
        link_width_most=_whole(_number(gpu, link + "link_widths/max_link_width")),
        is_busy=_text(gpu, "performance_state") in ("P0", "P1", "P2"),
        power_limit_w=_first(
            gpu, [f"{p}/{n}" for p in power for n in ("current_power_limit", "power_limit")]
        ),
        default_limit_w=_first(gpu, [f"{p}/default_power_limit" for p in power]),
        temperature_c=_number(gpu, "temperature/gpu_temp"),
        slowdown_c=_number(gpu, "temperature/gpu_temp_slow_threshold"),
        held_down_by=tuple(dict.fromkeys(_slowdowns(gpu))),
        ecc=_text(gpu, "ecc_mode/current_ecc"),
        uncorrectable=_uncorrectable(gpu),
        repair_pending=any(
            _text(gpu, path) == "Yes"
            for path in (
                "remapped_rows/remapped_row_pending",
                "retired_pages/pending_retirement",
                "ecc_errors/channel_repair_pending",
            )
        ),
        compute_mode=_text(gpu, "compute_mode"),
    )


def _text(gpu: ElementTree.Element, path: str) -> str | None:
    found = (gpu.findtext(path) or "").strip()
    return None if found.startswith(("N/A", "[", "Requested", "Unknown")) or not found else found


def _number(gpu: ElementTree.Element, path: str) -> float | None:
    """The number that a text such as "24576 MiB", "16x" or "350.00 W" begins with."""
    found = re.match(r"\d+(?:\.\d+)?", _text(gpu, path) or "")
    return None if found is None else float(found[0])


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _first(gpu: ElementTree.Element, paths: list[str]) -> float | None:
    return next((value for path in paths if (value := _number(gpu, path)) is not None), None)


def _bytes(gpu: ElementTree.Element, path: str) -> int | None:
    value = _number(gpu, path)
    return None if value is None else int(value) * MIB


def _holders(gpu: ElementTree.Element) -> list[GpuHolder]:
    return [
        GpuHolder(
            int(_number(one, "pid") or 0),
            _text(one, "process_name") or "not visible from here",
            _bytes(one, "used_memory"),
        )
        for one in gpu.iterfind("processes/process_info")
    ]


def _slowdowns(gpu: ElementTree.Element) -> list[str]:
    reasons = [
        *gpu.iterfind("clocks_event_reasons/*"),
        *gpu.iterfind("clocks_throttle_reasons/*"),
    ]
    active = [one.tag for one in reasons if (one.text or "").strip() == "Active"]
    return [why for end, why in SLOWDOWNS.items() if any(tag.endswith(f"_{end}") for tag in active)]


def _uncorrectable(gpu: ElementTree.Element) -> int | None:
    """Of all kinds of memory together; None where the GPU counts none."""
    counts = [
        _number(gpu, f"ecc_errors/volatile/{one.tag}")
        for one in gpu.iterfind("ecc_errors/volatile/*")
        if "uncorrectable" in one.tag
    ]
    known = [int(one) for one in counts if one is not None]
    return sum(known) if known else None
