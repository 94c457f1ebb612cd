"""IOMMU and ACS, on files and outputs of lspci that were written for this."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from persianmind.checks import pci
from persianmind.checks.base import Level
from persianmind.checks.pci import acs_finding, check_pci, iommu_finding
from tests.checks.test_gpus import PAIR, RECORDED, context

CAN_PEER = replace(PAIR, can_peer=True)


def lspci(name: str) -> str:
    return (RECORDED / f"lspci-{name}.txt").read_text(encoding="utf-8")


def test_access_control_on_a_bridge_is_named_with_its_address() -> None:
    found = acs_finding(lspci("acs-on"), CAN_PEER)
    # The second bridge has it off, and the GPU itself is no bridge.
    assert found.level is Level.WARN and "at 1 PCI bridges (00:01.1)" in found.detail
    off = acs_finding(lspci("acs-off"), CAN_PEER)
    assert (off.level, off.detail) == (Level.OK, "off on every bridge")


def test_what_cannot_be_looked_at_is_said() -> None:
    assert "only root may look" in acs_finding(lspci("not-root"), CAN_PEER).detail
    assert "lspci is not installed" in acs_finding(None, CAN_PEER).detail


def test_an_iommu_that_translates(tmp_path: Path) -> None:
    assert iommu_finding(tmp_path).detail == "off"
    (tmp_path / "sys/class/iommu/dmar0").mkdir(parents=True)
    line = tmp_path / "proc/cmdline"
    line.parent.mkdir()
    line.write_text("BOOT_IMAGE=/vmlinuz root=/dev/sda1 intel_iommu=on quiet\n")
    found = iommu_finding(tmp_path)
    assert found.level is Level.WARN and "iommu=pt" in found.detail
    line.write_text("BOOT_IMAGE=/vmlinuz intel_iommu=on iommu=pt quiet\n")
    assert iommu_finding(tmp_path).level is Level.OK


def test_it_matters_only_where_gpus_reach_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pci, "current_device", lambda: PAIR)
    (found,) = check_pci(context())
    assert found.level is Level.OK and "do not matter" in found.detail
    monkeypatch.setattr(pci, "current_device", lambda: CAN_PEER)
    monkeypatch.setattr(pci, "_lspci", lambda: lspci("acs-on"))
    assert {finding.name: finding.level for finding in check_pci(context())}["pci acs"] is Level.WARN
