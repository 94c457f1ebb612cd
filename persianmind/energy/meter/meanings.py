"""What NVML's throttle reasons and Xid numbers mean, in the words of the log and the report.

Sources: nvml.h (nvmlClocksEventReasons) and NVIDIA's "XID Errors" (docs.nvidia.com/deploy/xid-errors).
"""

from __future__ import annotations

from typing import Final

POWER_LIMIT: Final = "power limit"
HARDWARE_SLOWDOWN: Final = "hardware slowdown"

# Bit -> reason. An idle GPU (bit 0) is not held down.
THROTTLE_REASONS: Final = {
    0x002: "clocks set by hand",
    0x004: POWER_LIMIT,
    0x008: HARDWARE_SLOWDOWN,
    0x010: "sync boost",
    0x020: "temperature",
    0x040: "temperature, by hardware",
    0x080: "power brake",
    0x100: "display clock",
    0x200: "board limit",
    0x400: "voltage reliability",
}
# Bits that say why bit 0x008 is set too.
_SLOWDOWN_BITS: Final = 0x040 | 0x080

# What somebody at the machine can do about it. Of the rest, and of a power limit, nothing is wrong.
REMEDIES: Final = {
    HARDWARE_SLOWDOWN: "too hot, or the power supply signals overload: check cooling and power cables",
    "temperature": "improve the air flow, or lower the power limit (nvidia-smi -pl)",
    "temperature, by hardware": "it is close to switching off: improve the air flow now, or lower the power "
    "limit (nvidia-smi -pl)",
    "power brake": "the power supply signals overload: check it and its cables, or lower the power limit "
    "(nvidia-smi -pl)",
}

XID_MEANINGS: Final = {
    13: "a kernel failed on the GPU: a fault of a program, or an overclock that is not stable",
    31: "a kernel used an address that is not there: a fault of a program, seldom of the memory",
    32: "a damaged command stream: PCIe link, riser cable or slot",
    38: "the driver's firmware failed: update the driver",
    43: "a program's channel was reset after its own fault; the GPU itself is sound",
    45: "work was cut off, by a kill or after another Xid",
    48: "a memory error that ECC could not correct: reset the GPU; if it comes again, replace it",
    61: "the GPU's microcontroller failed: reset the GPU, update the driver",
    62: "the GPU's microcontroller failed: reset the GPU, update the driver",
    63: "a bad memory row was retired: reset the GPU when the run is over",
    64: "a bad memory row could not be retired: replace the GPU",
    69: "a kernel failed on the GPU: a fault of a program, or an overclock that is not stable",
    74: "the NVLink connection failed: reseat the bridge",
    79: "the GPU has fallen off the bus: power supply, power cable, riser, slot or heat; restart the machine",
    92: "many corrected memory errors: watch it",
    94: "a memory error, contained to one program: run again",
    95: "a memory error, not contained: reset the GPU; if it comes again, replace it",
    109: "a context switch took too long: lower an overclock, update the driver",
    119: "the GPU's system processor does not answer: restart the machine, update the driver",
    120: "the GPU's system processor failed: restart the machine, update the driver",
}
XID_UNKNOWN: Final = "see NVIDIA's list of Xid errors"


def reasons_of(bits: int) -> frozenset[str]:
    """The reasons for which a GPU's clocks are held down, of NVML's bit mask."""
    if bits & _SLOWDOWN_BITS:
        bits &= ~0x008
    return frozenset(reason for bit, reason in THROTTLE_REASONS.items() if bits & bit)


def xid_meaning(xid: int) -> str:
    """What an Xid error usually means, and what to do."""
    return XID_MEANINGS.get(xid, XID_UNKNOWN)
