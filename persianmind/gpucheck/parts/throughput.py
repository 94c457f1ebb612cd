"""Speed and energy of real optimizer steps at the largest shape that fits, and where the time of one goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from persianmind.estimate.flops import flops_per_token, peak_flops
from persianmind.gpucheck.engine_steps import asked_shape, first_shape, on_fitting_shape, open_shape, stepper
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import multiplies_bf16
from persianmind.gpucheck.nvml import NvmlMissingError, open_nvml
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import llama_2_7b

WARM_UP, LEAST_STEPS = 2, 3
STEPS_S, SMALL_STEPS_S = 15.0, 1.0
TOP_OPS = 25


def measure_throughput(setting: PartSetting, findings: Findings) -> None:
    """bf16 where all layers of the 7B fit so, else over a 4-bit base."""
    precision = "bf16" if multiplies_bf16(setting.device) and not setting.small else "fp32"
    is_whole = setting.small or first_shape(setting, "none").layers == llama_2_7b().layers
    quantize = "none" if is_whole else "nf4"
    options = {"precision": precision}
    shape, found = on_fitting_shape(
        f"{__name__}:steps_on_rank",
        setting,
        quantize,
        label="steps",
        options=options,
        count=setting.rank_count,
    )
    seconds, steps = max(one["seconds"] for one in found), found[0]["steps"]
    tokens_per_s = len(found) * steps * shape.seq_len / seconds
    peak = found[0]["peak_flops_per_s"]
    joules = [one["joules"] for one in found]
    energy_j = None if None in joules else sum(joules)
    findings.record(
        base="nf4" if quantize == "nf4" else precision,
        layers=shape.layers,
        seq_len=shape.seq_len,
        ranks=len(found),
        steps=steps,
        step_s=seconds / steps,
        tokens_per_s=tokens_per_s,
        mfu=None if peak is None else found[0]["flops_per_token"] * tokens_per_s / (len(found) * peak),
        watts=None if energy_j is None else energy_j / seconds,
        tokens_per_joule=None if not energy_j else len(found) * steps * shape.seq_len / energy_j,
        energy_missing=found[0].get("energy_missing"),
        top_ops=found[0]["top_ops"],
    )
    findings.expect("steps were done", steps >= LEAST_STEPS, steps=steps)
    findings.expect("the profiler saw them", bool(found[0]["top_ops"]))
    findings.summarise(
        f"{tokens_per_s:,.0f} tokens/s on {len(found)} ranks, {shape.layers} layers, {seconds / steps:.3f} s "
        "per step"
    )


def steps_on_rank(setting: PartSetting, findings: Findings) -> None:
    """On every rank: steps for some seconds, then one under the profiler."""
    opened = open_shape(asked_shape(setting), setting.options["precision"], setting.options["quantize"])
    engine, model, step = opened.engine, opened.engine.model, stepper(opened)
    is_cuda = opened.device.type == "cuda"
    findings.record(
        flops_per_token=flops_per_token(model, opened.shape.seq_len),
        peak_flops_per_s=peak_flops(
            torch.cuda.get_device_name(opened.device) if is_cuda else "", setting.options["precision"]
        ),
    )
    for _ in range(WARM_UP):
        step()
    limit_s = SMALL_STEPS_S if setting.small else STEPS_S
    with energy_counter(opened.device, findings) as joules:
        before_j, started_s, steps = joules(), time.perf_counter(), 0
        is_over = False
        while not is_over:
            step()
            steps += 1
            late = steps >= LEAST_STEPS and time.perf_counter() - started_s >= limit_s
            is_over = bool(engine.max(int(late)))  # all ranks stop at the same step
        seconds, after_j = time.perf_counter() - started_s, joules()
    used_j = None if before_j is None or after_j is None else after_j - before_j
    findings.record(steps=steps, seconds=seconds, joules=used_j, top_ops=top_ops(step, is_cuda=is_cuda))


@contextmanager
def energy_counter(device: torch.device, findings: Findings) -> Iterator[Callable[[], float | None]]:
    """The energy counter of this rank's GPU in joules; None where the findings say why."""
    if device.type != "cuda":
        findings.record(energy_missing="computed on the CPU")
        yield lambda: None
        return
    try:
        with open_nvml() as nvml:
            index = nvml.index_of(str(torch.cuda.get_device_properties(device).uuid))
            if index is None:
                findings.record(energy_missing="NVML does not list this GPU")
            yield lambda: None if index is None else nvml.energy_j(index)
    except NvmlMissingError as error:
        findings.record(energy_missing=str(error))
        yield lambda: None


def top_ops(step: Callable[[], object], *, is_cuda: bool) -> list[dict[str, Any]]:
    """One step under torch.profiler: the operators and kernels with the most time of their own."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as profiler:
        step()
    rows = [
        {
            "name": event.key[:120],
            "calls": event.count,
            "self_device_ms": event.self_device_time_total / 1000,
            "self_cpu_ms": event.self_cpu_time_total / 1000,
        }
        for event in profiler.key_averages()
    ]
    key = "self_device_ms" if is_cuda else "self_cpu_ms"
    return sorted(rows, key=lambda row: -row[key])[:TOP_OPS]
