"""What each lever of a step gains on this device: real optimizer steps, one lever changed at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from persianmind.common.errors import PersianMindError
from persianmind.data.read.prefetch import ReadAhead
from persianmind.engine.base import Batch, DeviceBatch
from persianmind.gpucheck.engine_steps import OpenedShape, asked_shape, open_shape
from persianmind.gpucheck.fanout import run_on_ranks
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import multiplies_bf16
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import TINY, LlamaShape, llama_2_7b, packed_batch
from persianmind.gpucheck.timing import median_ms, memory_bytes, reset_peak
from persianmind.model.adapted import AdaptedModel
from persianmind.model.compiling import compile_layers
from persianmind.model.folded_lora import unfold_adapters

LAYERS = 4  # of the 7B: the time of each is the same, and any recompute fits
MICRO_BATCHES = 4  # of the steps that are fed: the first of them is not read ahead
FEEDING_STEPS = 3
BASELINE = "selective recompute"


@dataclass(frozen=True, slots=True)
class Lever:
    """One way to step. folded: whether adapters run without passes of their own."""

    name: str
    recompute: str = "selective"
    quantize: str = "none"
    folded: bool = True
    compiled: bool = False


LEVERS = (
    Lever(BASELINE),
    Lever("full recompute", recompute="full"),
    Lever("no recompute", recompute="off"),
    Lever("peft's own LoRA", folded=False),
    Lever("int8 base, no recompute", recompute="off", quantize="int8"),
    Lever("nf4 base, no recompute", recompute="off", quantize="nf4"),
    Lever("compiled layers", compiled=True),
)


def measure_levers(setting: PartSetting, findings: Findings) -> None:
    """A row for each lever, then feeding and the kernels of AdamW; one that cannot run here says why."""
    precision = "bf16" if multiplies_bf16(setting.device) and not setting.small else "fp32"
    shape = TINY if setting.small else replace(llama_2_7b(), layers=LAYERS)
    findings.record(precision=precision, layers=shape.layers, seq_len=shape.seq_len)
    for number, lever in enumerate(LEVERS):
        _try(
            lever.name,
            partial(_on_a_rank, "lever_on_rank", setting, shape, {"lever": asdict(lever)}, number, precision),
            findings,
        )
    _try(
        "feeding",
        partial(_on_a_rank, "feeding_on_rank", setting, shape, {}, len(LEVERS), precision),
        findings,
    )
    for row in adamw_rows(shape, setting.device):
        findings.append("rows", row)
    rows = {row["lever"]: row for row in findings.values["rows"]}
    findings.expect("the baseline ran", "ms" in rows[BASELINE], why=rows[BASELINE].get("missing", ""))
    base_ms = rows[BASELINE].get("ms", 0.0)
    findings.summarise(
        ", ".join(
            f"{lever.name} {rows[lever.name]['ms'] / base_ms:.2f}"
            for lever in LEVERS[1:]
            if base_ms and "ms" in rows[lever.name]
        )
        + f" of the {base_ms:.1f} ms of {BASELINE}"
    )


def _try(name: str, measure: Callable[[], dict[str, Any]], findings: Findings) -> None:
    try:
        row = measure()
    except PersianMindError as error:
        row = {"missing": " ".join(str(error).split())[:300]}
    findings.append("rows", {"lever": name, **row})


def _on_a_rank(
    function: str,
    setting: PartSetting,
    shape: LlamaShape,
    options: dict[str, Any],
    number: int,
    precision: str,
) -> dict[str, Any]:
    """In a process of its own, so that memory begins empty and what a lever breaks stays there."""
    asked = {**options, "shape": asdict(shape), "precision": precision}
    (found,) = run_on_ranks(
        f"{__name__}:{function}", setting, 1, label=f"lever-{number}", options=asked, quiet=setting.small
    )
    row: dict[str, Any] = found["row"]
    return row


def lever_on_rank(setting: PartSetting, findings: Findings) -> None:
    """Median ms of a step of one sequence, tokens per second, peak memory, and the first step's time."""
    lever = Lever(**setting.options["lever"])
    opened = open_shape(
        asked_shape(setting), setting.options["precision"], lever.quantize, recompute=lever.recompute
    )
    model: AdaptedModel = opened.engine.model
    if not lever.folded:
        unfold_adapters(model)
    if lever.compiled:
        compile_layers(model.causal_lm)
    batch = packed_batch(opened.shape, 1, seed=60)
    started_s = time.perf_counter()
    opened.engine.step([batch])
    first_step_s = time.perf_counter() - started_s
    reset_peak(opened.device)
    ms = median_ms(lambda: opened.engine.step([batch]), opened.device, budget_s=2.0)
    findings.record(
        row={
            "ms": ms,
            "tokens_per_s": opened.shape.seq_len / (ms / 1000),
            "first_step_s": first_step_s,
            **memory_bytes(opened.device),
        }
    )


def feeding_on_rank(setting: PartSetting, findings: Findings) -> None:
    """Steps over batches that are made as they are asked for: each before its own forward pass, and one
    ahead."""
    opened = open_shape(asked_shape(setting), setting.options["precision"], "none", recompute="selective")
    direct, ahead = _fed_ms(opened)
    findings.record(
        row={
            "ms": ahead,
            "tokens_per_s": MICRO_BATCHES * opened.shape.seq_len / (ahead / 1000),
            "not_ahead_ms": direct,
            "micro_batches": MICRO_BATCHES,
        }
    )


def _fed_ms(opened: OpenedShape) -> tuple[float, float]:
    """Median ms of a step (without, with) reading ahead, in turn."""
    engine = opened.engine
    targets = sum(int((_made(opened, seed)["labels"] >= 0).sum()) for seed in range(MICRO_BATCHES))

    def prepared(seed: int) -> DeviceBatch:
        return engine.prepare(_made(opened, seed))

    def direct() -> Iterator[DeviceBatch]:
        return map(prepared, range(MICRO_BATCHES))

    with ReadAhead(prepared) as ahead:
        ways: tuple[Callable[[], Iterator[DeviceBatch]], ...] = (
            direct,
            lambda: ahead.items(range(MICRO_BATCHES), then=0),
        )
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(1 + FEEDING_STEPS):
            for batches, found in zip(ways, times, strict=True):
                started_s = time.perf_counter()
                engine.step(batches(), local_targets=targets)
                found.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def _made(opened: OpenedShape, seed: int) -> Batch:
    return packed_batch(opened.shape, 1, seed=seed)


def adamw_rows(shape: LlamaShape, device: torch.device) -> Sequence[dict[str, Any]]:
    """ms of AdamW's update of fp32 masters, as many as the new embeddings have, by kernel."""
    rows = []
    for kernel in ("fused", "foreach", "loop"):
        masters = [torch.nn.Parameter(torch.zeros(shape.added * shape.hidden_size, device=device))]
        flags: dict[str, Any] = {"fused": kernel == "fused", "foreach": kernel == "foreach"}
        optimizer = torch.optim.AdamW(masters, **flags)
        masters[0].grad = torch.ones_like(masters[0])
        rows.append({"lever": f"AdamW {kernel}", "ms": median_ms(optimizer.step, device)})
    return rows
