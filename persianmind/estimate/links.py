"""What connects GPUs, and what ZeRO-2's exchange of a step takes over it."""

from __future__ import annotations

from dataclasses import dataclass

from persianmind.common.errors import UsageError, nearest

# Of what a lane or a port can do, the part that collectives of tens of megabytes get: NCCL's bus bandwidth on
# PCIe without peer-to-peer goes twice through host memory, TCP loses a tenth to its headers and copies.
# Assumptions, until `make gpu-check` has measured this machine (its part `collectives`).
PCIE_IN_PRACTICE = 0.40
NVLINK_IN_PRACTICE = 0.75
ETHERNET_IN_PRACTICE = 0.85
PCIE_LANE = {3: 0.985e9, 4: 1.969e9, 5: 3.938e9}  # bytes/s of one lane, each way (PCI-SIG, after encoding)


@dataclass(frozen=True, slots=True)
class Link:
    """bytes_per_s: each way, as collectives get it; peak: by the standard. latency_s: of one collective."""

    name: str
    bytes_per_s: float
    peak_bytes_per_s: float
    latency_s: float


def _link(name: str, peak: float, in_practice: float, latency_s: float) -> Link:
    return Link(name, peak * in_practice, peak, latency_s)


LINKS = (
    *(
        _link(f"PCIe {generation} x{width}", lane * width, PCIE_IN_PRACTICE, 50e-6)
        for generation, lane in PCIE_LANE.items()
        for width in (1, 4, 8, 16)
    ),
    _link("NVLink 3 bridge", 56.25e9, NVLINK_IN_PRACTICE, 30e-6),  # RTX 3090, A6000: 112.5 GB/s both ways
    _link("NVLink A100", 300e9, NVLINK_IN_PRACTICE, 30e-6),
    _link("NVLink H100", 450e9, NVLINK_IN_PRACTICE, 30e-6),
    *(
        _link(f"Ethernet {gbit} Gbit/s", gbit / 8 * 1e9, ETHERNET_IN_PRACTICE, 200e-6)
        for gbit in (1, 2.5, 10, 25, 100)
    ),
)
DEFAULT_LINK = "PCIe 3 x8"  # what boards for several consumer GPUs give each of them


def find_link(name: str) -> Link:
    """The link of this name, whatever its case and spaces.

    Raises:
        UsageError: there is none; the line names the nearest.
    """
    by_key = {_key(link.name): link for link in LINKS}
    if (link := by_key.get(_key(name))) is None:
        names = [link.name for link in LINKS]
        raise UsageError(f"no link {name!r}{nearest(name, names)}; known are {', '.join(names)}")
    return link


def _key(name: str) -> str:
    return "".join(name.lower().split())


def exchanged_bytes(trained: int, weight_bytes: int, gradient_bytes: int, ranks: int) -> float:
    """Bytes that each rank sends, and receives, for one optimizer step: each gradient goes to the rank that
    owns its partition, and each partition of updated weights to all others. What is frozen never moves.

    Args:
        trained: number of trained weights.
        weight_bytes, gradient_bytes: of one weight and one gradient as they are sent.
    """
    return trained * (weight_bytes + gradient_bytes) * (ranks - 1) / ranks


def exchange_s(
    link: Link, trained: int, weight_bytes: int, gradient_bytes: int, ranks: int, bucket_elements: int
) -> float:
    """Seconds of a step's exchange, nothing of it hidden behind the computation.

    Args:
        bucket_elements: how many elements go in one collective (`reduce_bucket_size` of the JSON).
    """
    if ranks == 1:
        return 0.0
    collectives = 2 * max(ranks, -(-trained // bucket_elements))
    sent = exchanged_bytes(trained, weight_bytes, gradient_bytes, ranks)
    return sent / link.bytes_per_s + collectives * link.latency_s
