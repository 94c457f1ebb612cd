"""What doctor says of GPUs, on recorded outputs of nvidia-smi; nothing here needs one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from persianmind.checks import gpus, nvidia_smi
from persianmind.checks.base import CheckContext, CheckResult, Level
from persianmind.checks.gpus import check_gpus, fleet_findings, gpu_findings
from persianmind.checks.nvidia_smi import GpuReport, parse_smi, query_gpus
from persianmind.common.device.choice import DeviceChoice
from persianmind.common.device.nvml import Gpu
from persianmind.common.errors import MachineError
from persianmind.run.folder import RunFolder

RECORDED = Path(__file__).parent / "recorded"
PAIR = DeviceChoice(
    "cuda",
    "2 x RTX 3090",
    tuple(Gpu(index, "RTX 3090", f"GPU-{index}{index}{index}", (8, 6)) for index in range(2)),
    count=2,
    can_peer=False,
)


def recorded(name: str) -> list[GpuReport]:
    return parse_smi((RECORDED / f"{name}.xml").read_text(encoding="utf-8"))


def by_name(gpu: GpuReport) -> dict[str, CheckResult]:
    return {finding.name.rpartition(" ")[2]: finding for finding in gpu_findings(gpu)}


def context(ranks: int = 1) -> CheckContext:
    return CheckContext(None, Path("zero2.json"), RunFolder(Path("runs")), ranks)


def test_a_healthy_pair_has_nothing_to_say_and_an_idle_link_is_no_fault() -> None:
    first, second = recorded("rtx-3090-good")
    assert {one.level for gpu in (first, second) for one in gpu_findings(gpu)} == {Level.OK}
    found = by_name(first)
    assert "25.3 of 25.8 GB free" in found["memory"].detail
    assert "PCIe 1.0 x16 now, at most 4.0 x16 (idle boards lower it)" in found["link"].detail
    assert "limit 280 W, default 350 W" in by_name(second)["power"].detail
    assert "has no error counter" in found["ecc"].detail


def test_memory_that_others_hold_names_them() -> None:
    first, second, third = recorded("rtx-3090-bad")
    found = by_name(first)["memory"]
    assert found.level is Level.WARN
    assert "pid 4711 /usr/bin/python3 [bold]serve.py 21.5 GB, pid 900" in found.detail
    # Of another container: the driver lists no process, and the memory is not free all the same.
    hidden = by_name(second)["memory"]
    assert hidden.level is Level.WARN and "does not list" in hidden.detail
    closed = by_name(third)["memory"]
    assert closed.level is Level.FAIL and "nvidia-smi -i 2 -c DEFAULT" in closed.detail


def test_links_that_are_narrow_or_slow() -> None:
    narrow, slow_slot, busy = (by_name(gpu)["link"] for gpu in recorded("rtx-3090-bad"))
    assert narrow.level is Level.WARN and "only 4 of 16 lanes" in narrow.detail
    assert slow_slot.level is Level.WARN and "the board can do 4.0" in slow_slot.detail
    assert busy.level is Level.WARN and "although its clocks are up" in busy.detail


def test_power_and_heat() -> None:
    first, second, _ = recorded("rtx-3090-bad")
    assert by_name(first)["power"].level is Level.WARN
    assert "-pl 280" in by_name(first)["power"].detail
    assert "it slows down at 95 C" in by_name(first)["temperature"].detail
    held = by_name(second)["temperature"]
    assert held.level is Level.WARN and "held down by heat, a hardware slowdown" in held.detail


def test_memory_errors_and_pending_repairs() -> None:
    errors, pending, good = (by_name(gpu)["ecc"] for gpu in recorded("a100-errors"))
    assert errors.level is Level.WARN and "2 memory errors" in errors.detail
    assert pending.level is Level.WARN and "--gpu-reset" in pending.detail
    assert (good.level, good.detail.endswith("ECC enabled, no uncorrected error")) == (Level.OK, True)


def test_an_older_drivers_document_is_read_too() -> None:
    (gpu,) = recorded("gtx-1660-old-driver")
    assert (gpu.power_limit_w, gpu.board_generation, gpu.held_down_by) == (
        120.0,
        3,
        ("the power supply's brake signal",),
    )


def test_what_a_driver_does_not_say_is_no_finding() -> None:
    (gpu,) = parse_smi("<nvidia_smi_log><gpu id='0'><product_name>vGPU</product_name></gpu></nvidia_smi_log>")
    assert {finding.level for finding in gpu_findings(gpu)} == {Level.OK}


def test_gpus_together() -> None:
    good = recorded("rtx-3090-good")
    alike, peers = fleet_findings(good, PAIR, ranks=2)
    assert (alike.level, peers.level) == (Level.OK, Level.OK) and "NCCL_P2P_DISABLE=1" in peers.detail
    (unlike, _) = fleet_findings([good[0], replace(good[1], name="NVIDIA RTX A6000")], PAIR, ranks=2)
    assert unlike.level is Level.WARN and "unlike GPUs" in unlike.detail
    (too_many, _) = fleet_findings(good, PAIR, ranks=3)
    assert too_many.level is Level.FAIL and "3 ranks and 2 GPUs" in too_many.detail


def fake_program(text: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(arguments: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[str]:
        assert arguments == ("nvidia-smi", "-q", "-x")
        return subprocess.CompletedProcess(arguments, 0, text, "")

    return run


def test_only_visible_gpus_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "current_device", lambda: PAIR)
    text = (RECORDED / "rtx-3090-bad.xml").read_text(encoding="utf-8")
    monkeypatch.setattr(nvidia_smi.subprocess, "run", fake_program(text))
    names = {finding.name for finding in check_gpus(context())}
    assert "gpu 1 link" in names and not any(name.startswith("gpu 2") for name in names)


def test_a_program_that_is_missing_hangs_or_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="nvidia-smi is not here"):
        query_gpus()
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n"
    )
    program.chmod(0o755)
    with pytest.raises(MachineError, match="nvidia-smi fails"):
        query_gpus()

    def hang(*arguments: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 30)

    monkeypatch.setattr(nvidia_smi.subprocess, "run", hang)
    with pytest.raises(MachineError, match="does not answer"):
        query_gpus()


def test_a_cpu_has_one_line() -> None:
    (found,) = check_gpus(context())
    assert found.level is Level.OK and "none is used" in found.detail
