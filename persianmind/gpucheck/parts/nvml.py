"""NVML's energy counter against its power readings, integrated over some seconds of load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from persianmind.energy.meter.nvml import NvmlGpu
from persianmind.gpucheck.findings import Findings, NotApplicableError
from persianmind.gpucheck.nvml import NvmlMissingError, NvmlReader, open_nvml
from persianmind.gpucheck.setting import PartSetting

LOAD_S, SMALL_LOAD_S = 10.0, 1.0
SAMPLE_S = 0.05
# Sensors average over up to a second, and the load begins and ends: so far the two may differ.
LIMIT = 0.15
LOAD_SIZE = 8192


def measure_nvml(setting: PartSetting, findings: Findings) -> None:
    """One row for each GPU, all under load at once; without load in a small check."""
    seconds = SMALL_LOAD_S if setting.small else LOAD_S
    try:
        with open_nvml() as nvml:
            readable = [
                index
                for index in nvml.gpus
                if nvml.energy_j(index) is not None and nvml.power_w(index) is not None
            ]
            if not readable:
                raise NotApplicableError("no GPU here has both an energy counter and a power reading")
            load = _idle if setting.small else _matmuls
            rows = _compare(nvml, readable, lambda: load(seconds))
    except NvmlMissingError as error:
        raise NotApplicableError(f"{error}: skipped") from None
    for row in rows:
        findings.append("rows", row)
        findings.expect(
            f"GPU {row['gpu']}: counter and integrated power agree",
            abs(row["counter_over_integral"] - 1) <= LIMIT,
            ratio=row["counter_over_integral"],
            limit=LIMIT,
        )
    findings.summarise(
        "counter over integrated power: " + ", ".join(f"{row['counter_over_integral']:.3f}" for row in rows)
    )


def _compare(nvml: NvmlReader, gpus: list[int], load: Callable[[], None]) -> list[dict[str, Any]]:
    samples: list[tuple[float, list[float]]] = []
    stop = threading.Event()

    def sample() -> None:
        samples.append((time.monotonic(), [nvml.power_w(index) or 0.0 for index in gpus]))

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            sample()

    thread = threading.Thread(target=watch, daemon=True)
    before = [nvml.energy_j(index) or 0.0 for index in gpus]
    sample()
    thread.start()
    load()
    looks = [NvmlGpu(index).look() for index in gpus]  # while clocks are those of the load
    stop.set()
    thread.join()
    sample()
    after = [nvml.energy_j(index) or 0.0 for index in gpus]
    rows = []
    for number, index in enumerate(gpus):
        integral_j = sum(
            (later - earlier) * (one[number] + two[number]) / 2
            for (earlier, one), (later, two) in pairwise(samples)
        )
        counter_j = after[number] - before[number]
        rows.append(
            {
                "gpu": index,
                "counter_j": counter_j,
                "integral_j": integral_j,
                "counter_over_integral": counter_j / max(integral_j, 1e-9),
                "mean_w": integral_j / (samples[-1][0] - samples[0][0]),
                "samples": len(samples),
                "clock_mhz": looks[number].clock_mhz,
                "temperature_c": looks[number].temperature_c,
                "held_down_by": sorted(looks[number].reasons),
            }
        )
    return rows


def _idle(seconds: float) -> None:
    time.sleep(seconds)


def _matmuls(seconds: float) -> None:
    """On every GPU at once; each waits once per round, so that no queue outlives the time."""
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    squares = [torch.randn(LOAD_SIZE, LOAD_SIZE, device=one, dtype=torch.float16) for one in devices]
    ended_s = time.monotonic() + seconds
    while time.monotonic() < ended_s:
        for square in squares:
            for _ in range(4):
                square @ square
        for device in devices:
            torch.cuda.synchronize(device)
