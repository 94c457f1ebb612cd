"""What stands between GPUs that reach each other's memory: the IOMMU, and access control on PCI bridges."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from persianmind.checks.base import CheckContext, CheckResult
from persianmind.common.device.choice import DeviceChoice, current_device

QUERY = ("lspci", "-vv")
TIMEOUT_S = 20.0
# Flags of an ACSCtl line that send a request between two devices up to the processor.
REDIRECTING = ("SrcValid+", "ReqRedir+", "CmpltRedir+")


def check_pci(context: CheckContext) -> Iterator[CheckResult]:
    """Two lines, where there are GPUs that could reach each other."""
    choice = current_device()
    if choice.kind == "cpu" or choice.count < 2:
        yield CheckResult.ok("pci", "fewer than two GPUs: nothing to exchange")
        return
    if choice.can_peer is False:
        yield CheckResult.ok("pci", "no pair of GPUs can reach each other: ACS and IOMMU do not matter")
        return
    yield iommu_finding(Path("/"))
    yield acs_finding(_lspci(), choice)


def iommu_finding(root: Path) -> CheckResult:
    """From the kernel's own files below `root`."""
    units = root / "sys/class/iommu"
    if not units.is_dir() or not any(units.iterdir()):
        return CheckResult.ok("iommu", "off")
    try:
        line = (root / "proc/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        line = ""
    if re.search(r"\biommu(?:\.passthrough)?=(?:pt|1)\b", line):
        return CheckResult.ok("iommu", "on, in pass-through: devices use real addresses")
    return CheckResult.warn(
        "iommu",
        "on: transfers between GPUs are translated, which is slow and makes some boards hang; boot with "
        "iommu=pt, or turn VT-d / AMD-Vi off in the BIOS (not inside a virtual machine)",
    )


def acs_finding(text: str | None, choice: DeviceChoice) -> CheckResult:
    """text: what `lspci -vv` printed, None where it is not installed."""
    if text is None:
        return CheckResult.ok("pci acs", "not known: lspci is not installed (pciutils)")
    bridges = redirecting_bridges(text)
    if bridges:
        shown = ", ".join(bridges[:4]) + (" ..." if len(bridges) > 4 else "")
        return CheckResult.warn(
            "pci acs",
            f"access control (ACS) is on at {len(bridges)} PCI bridges ({shown}): transfers between GPUs "
            "make a detour; turn ACS off in the BIOS, or `sudo setpci -s BRIDGE ECAP_ACS+6.w=0000` after "
            "each start",
        )
    if "ACSCtl:" not in text and "access denied" in text:
        return CheckResult.ok("pci acs", "not known: only root may look (sudo lspci -vv | grep ACSCtl)")
    return CheckResult.ok("pci acs", "off on every bridge")


def redirecting_bridges(text: str) -> list[str]:
    """Addresses of the PCI bridges whose ACSCtl line sends traffic up to the processor."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        head = re.match(r"\s*([0-9a-fA-F:.]+) PCI bridge", block)
        control = re.search(r"ACSCtl:(.*)", block)
        if head and control and any(flag in control[1] for flag in REDIRECTING):
            found.append(head[1])
    return found


def _lspci() -> str | None:
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout
