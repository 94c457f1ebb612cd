"""Gradients over all ranks, by the real engine, equal those that one process computes over the same
sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from persianmind.engine.base import Batch
from persianmind.engine.ranks import ranks_from_environment
from persianmind.engine.registry import backend
from persianmind.gpucheck.fanout import run_on_ranks
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import number_kinds
from persianmind.gpucheck.reference import relative_errors
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import NUMERIC, TINY, packed_batch, part_recipe, perturb_adapters, save_base
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.documents import model_inputs

GRADIENT_LIMIT = {"fp32": 1e-4, "bf16": 3e-2}  # relative L2 error of a group, as in train/selftest.py
MICRO_BATCHES = 2  # per rank: the engine sums them before it reduces
HANG_TIMEOUT_S = 60.0


def measure_ranks(setting: PartSetting, findings: Findings) -> None:
    """One run for each precision."""
    shape = TINY if setting.small else NUMERIC
    base = save_base(shape, setting.folder / "base")
    count = setting.rank_count
    worst: dict[str, float] = {}
    for kind in number_kinds(setting.device):
        if kind.quantize != "none" or (setting.small and kind.precision != "fp32"):
            continue
        limit = GRADIENT_LIMIT[kind.precision]
        options = {"base": str(base), "precision": kind.precision}
        found = run_on_ranks(f"{__name__}:compare_on_rank", setting, count, label=kind.name, options=options)
        errors = [max(one["gradient_error"].values()) for one in found]
        controls = [max(one["control_error"].values()) for one in found]
        findings.expect(
            f"{kind.name} on {count} ranks", max(errors) <= limit, gradient_error=errors, limit=limit
        )
        findings.expect(
            f"control: {kind.name}: labels of the last micro-batch one place late",
            min(controls) > limit,
            gradient_error=controls,
            more_than=limit,
        )
        worst[kind.name] = max(errors)
    findings.record(ranks=count, worst_gradient_error=worst)
    shown = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    findings.summarise(f"gradients over {count} ranks against one process: {shown}")


def compare_on_rank(setting: PartSetting, findings: Findings) -> None:
    """On every rank: the engine's reduced gradients against this process's own over all ranks' sequences."""
    shape = TINY if setting.small else NUMERIC
    ranks = ranks_from_environment()
    engine_of = backend()
    precision = setting.options["precision"]
    engine_of.start(ranks, HANG_TIMEOUT_S, {"train.precision": precision})
    device = engine_of.device(ranks)
    total = MICRO_BATCHES * ranks.world_size
    recipe = part_recipe(
        shape, f"train.precision={precision}", f"train.global_batch_size={total}", "train.micro_batch_size=1"
    )
    model = build_adapted(Path(setting.options["base"]), recipe, shape.pieces, shape.vocab, device).to(device)
    perturb_adapters(model)
    batches = [packed_batch(shape, 1, seed=20 + number) for number in range(total)]
    faulty = [*batches[:-1], _late_labels(batches[-1])]
    reference, control = (_one_process(model, some, device) for some in (batches, faulty))
    config = engine_of.resolve_config(engine_of.default_config, recipe, ranks.world_size)
    engine = engine_of.open(model, config, ranks)
    model.eval()
    mine = batches[ranks.rank * MICRO_BATCHES : (ranks.rank + 1) * MICRO_BATCHES]
    reduced = dict(engine.reduced_gradients(mine, scale=1 / _targets(batches)))
    if lacking := [name for name, value in reduced.items() if value is None]:
        findings.expect(f"rank {ranks.rank}: every trained parameter has a gradient", False, lacking=lacking)
    got = {name: value for name, value in reduced.items() if value is not None}
    findings.record(
        gradient_error=relative_errors(got, reference), control_error=relative_errors(got, control)
    )


def _one_process(model: AdaptedModel, batches: Sequence[Batch], device: torch.device) -> Mapping[str, Tensor]:
    """fp32 gradients of the mean loss over all batches, by plain autograd on this rank alone."""
    sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in model.trained().items()}
    model.eval()
    for batch in batches:
        (model(**model_inputs(batch, device)) / _targets(batches)).backward()
        for name, value in model.trained().items():
            if value.grad is not None:
                sums[name] += value.grad.float()
            value.grad = None
    return sums


def _late_labels(batch: Batch) -> Batch:
    return {**batch, "labels": np.roll(batch["labels"], 1, axis=1)}


def _targets(batches: Sequence[Batch]) -> int:
    return sum(int((batch["labels"] >= 0).sum()) for batch in batches)
