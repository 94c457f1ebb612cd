"""Peak memory of optimizer steps at the 7B's shape, in bf16 and over a 4-bit base, beside the planner's."""

from __future__ import annotations

import math
from typing import Any

import torch

from persianmind.estimate.bases import VocabularySize
from persianmind.estimate.gpus import find_gpu, known_gpu
from persianmind.estimate.planner import Planner
from persianmind.estimate.target import REFERENCE_GPU, Target
from persianmind.gpucheck.engine_steps import asked_shape, on_fitting_shape, open_shape, step_recipe, stepper
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import multiplies_bf16
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import LlamaShape
from persianmind.gpucheck.timing import memory_bytes, reset_peak

STEPS = 2  # the second one has every optimizer state already


def measure_memory(setting: PartSetting, findings: Findings) -> None:
    """One row for each way to hold the base."""
    precision = "bf16" if multiplies_bf16(setting.device) else "fp32"
    count = 1 if setting.small else setting.rank_count
    shown = []
    for quantize in ("none", "nf4"):
        name = "nf4" if quantize == "nf4" else precision
        shape, found = on_fitting_shape(
            f"{__name__}:step_on_rank",
            setting,
            quantize,
            label=name,
            options={"precision": precision},
            count=count,
        )
        peak = max(one.get("peak_allocated_bytes", one.get("peak_resident_bytes", 0)) for one in found)
        planned = planned_bytes(shape, precision, quantize, setting, count)
        row: dict[str, Any] = {"base": name, "layers": shape.layers, "seq_len": shape.seq_len, "ranks": found}
        ratio = None if setting.small else planned["peak_bytes"] / peak
        findings.append("rows", row | {"planned": planned, "planned_over_measured": ratio})
        finite = all(math.isfinite(one["loss"]) for one in found)
        findings.expect(f"{name}: the loss is finite", finite, losses=[one["loss"] for one in found])
        shown.append(
            f"{name} {shape.layers} layers {peak / 1e9:.2f} GB, planned {planned['peak_bytes'] / 1e9:.2f}"
        )
    findings.summarise("peak per rank: " + "; ".join(shown))


def planned_bytes(
    shape: LlamaShape, precision: str, quantize: str, setting: PartSetting, ranks: int
) -> dict[str, Any]:
    """What `persianmind plan` says of these steps, by kind and with the reserve.

    In a small check the measured side is the whole process, libraries and all: no ratio is taken.
    """
    gpu = None
    if not setting.small:
        gpu = known_gpu(torch.cuda.get_device_name()) or find_gpu(REFERENCE_GPU)
    target = Target(gpu, 0, "the GPU of this check")
    vocabulary = VocabularySize(shape.vocab, shape.added, shape.added, "this check")
    planner = Planner(shape.config().to_dict(), vocabulary, target, ranks, None)
    peak = planner.estimate(step_recipe(shape, precision, quantize, ranks)).peak
    return {
        "peak_bytes": peak.allocated,
        "with_reserve_bytes": peak.with_reserve,
        "phase": peak.phase,
        "phases": dict(peak.phases),
        "bytes": dict(peak.bytes),
    }


def step_on_rank(setting: PartSetting, findings: Findings) -> None:
    """On every rank: what the state takes, and the peak of a step."""
    shape, precision = asked_shape(setting), setting.options["precision"]
    opened = open_shape(
        shape,
        precision,
        setting.options["quantize"],
        lambda moment, device: findings.record(**{f"at_{moment}": memory_bytes(device)}),
    )
    model = opened.engine.model
    trained = sum(value.numel() for value in model.trained().values())
    findings.record(
        weight_bytes=sum(value.numel() * value.element_size() for value in model.parameters()),
        trained_parameters=trained,
    )
    step = stepper(opened)
    for _ in range(STEPS):
        reset_peak(opened.device)
        findings.record(loss=step(), **memory_bytes(opened.device))
