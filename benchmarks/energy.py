"""What the energy meter costs the training process: `python benchmarks/energy.py [--quick] [--json FILE]`.

Figures: the time of one mark (called once per optimizer step), the part of one core that the meter's
own process uses while it counts, and the slowdown of a compute loop that keeps every core busy, measured as
alternating blocks with and without a meter so that drift of the machine hits both alike; and, where there are
NVIDIA GPUs, the time of one look at one of them (limits, clocks, throttling), which the meter's process pays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from persianmind.energy.meter.client import EnergyMeter
from persianmind.energy.meter.watch import GpuWatch
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase


def start(folder: RunFolder, node: str) -> tuple[EnergyMeter, float]:
    """A meter that has given its first reading, and the CPU seconds its process needed for that."""
    meter = EnergyMeter(folder, node=node, options=Energy(interval_s=5.0)).start()
    while meter.joules() == 0:
        time.sleep(0.05)
    times = process_of(meter).cpu_times()
    return meter, times.user + times.system


def process_of(meter: EnergyMeter) -> psutil.Process:
    assert meter._process is not None
    return psutil.Process(meter._process.pid)


def mark_cost_us(meter: EnergyMeter, marks: int) -> list[float]:
    """Microseconds of each of many marks, a millisecond apart as no real run would have them."""
    costs = []
    for step in range(marks):
        begun = time.perf_counter()
        meter.mark(Phase.TRAIN, step, "pretrain")
        costs.append((time.perf_counter() - begun) * 1e6)
        time.sleep(0.001)
    return costs


def core_ratio(meter: EnergyMeter, seconds: float) -> float:
    """CPU seconds of the meter's process per second of wall time, while it counts with 5 s intervals."""
    process = process_of(meter)
    before, begun = process.cpu_times(), time.perf_counter()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.perf_counter() - begun)


def step_seconds(steps: int, meter: EnergyMeter | None) -> list[float]:
    """A stand-in for an optimizer step of some 100 ms: matmuls on every core."""
    matrix = torch.randn(1024, 1024)
    seconds = []
    for step in range(steps):
        begun = time.perf_counter()
        if meter is not None:
            meter.mark(Phase.TRAIN, step, "pretrain")
        for _ in range(6):
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        seconds.append(time.perf_counter() - begun)
    return seconds


def slowdown(folder: RunFolder, blocks: int, steps: int) -> dict[str, float]:
    """Median step with a meter over median step without, in alternating blocks."""
    plain: list[float] = []
    metered: list[float] = []
    step_seconds(steps, None)
    for block in range(blocks):
        plain += step_seconds(steps, None)
        meter, _ = start(folder, f"block{block}")
        metered += step_seconds(steps, meter)
        meter.stop()
    without, with_meter = statistics.median(plain), statistics.median(metered)
    return {"step_ms_without": without * 1e3, "step_ms_with": with_meter * 1e3,
            "slowdown_percent": 100 * (with_meter / without - 1)}  # fmt: skip


def watch_cost_us(looks: int) -> dict[str, float]:
    """Microseconds of one look at one GPU, Xid errors included; nothing where there is no NVIDIA GPU."""
    import pynvml

    try:
        pynvml.nvmlInit()
        gpus = list(range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return {}
    watch = GpuWatch(gpus)
    seconds = []
    for _ in range(looks):
        begun = time.perf_counter()
        watch.sample(begun)
        seconds.append(time.perf_counter() - begun)
    return {"watch_us_per_gpu": statistics.median(seconds) * 1e6 / len(gpus)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about 20 s instead of two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    arguments = parser.parse_args()
    seconds, blocks, steps, marks = (5, 2, 20, 500) if arguments.quick else (40, 6, 60, 3000)
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        meter, startup_cpu_s = start(folder, "node")
        costs = sorted(mark_cost_us(meter, marks))
        ratio = core_ratio(meter, seconds)
        memory = process_of(meter).memory_info().rss
        meter.stop()
        figures: dict[str, Any] = {
            "mark_us_median": statistics.median(costs),
            "mark_us_p99": costs[int(0.99 * len(costs))],
            "meter_core_percent": 100 * ratio,
            "meter_startup_cpu_s": startup_cpu_s,
            "meter_rss_mb": memory / 1e6,
            "torch_threads": torch.get_num_threads(),
            **slowdown(folder, blocks, steps),
            **watch_cost_us(marks),
        }
    for name, value in figures.items():
        print(f"{name:24} {value:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
