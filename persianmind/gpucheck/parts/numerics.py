"""Loss and gradients of one micro-batch against plain transformers: attention x micro-batch x recompute x
precision; and two planted faults that must be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from persianmind.engine.base import Batch
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import RECOMPUTE, NumberKind, attentions, kind_recipe, number_kinds
from persianmind.gpucheck.reference import plain_gradients, plain_model, relative_errors
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import NUMERIC, TINY, packed_batch, perturb_adapters, save_base
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.documents import documents_of, model_inputs

# Relative errors by the rounding of the matmuls: of the summed loss, and of a group of gradients (L2). int8:
# against the base before it was rounded, so weights, activations and gradients add up.
LOSS_LIMIT = {"fp32": 1e-5, "bf16": 5e-3, "int8": 1e-2}
GRADIENT_LIMIT = {"fp32": 1e-4, "bf16": 5e-2, "int8": 1e-1}
MICRO_BATCH_SIZES = (1, 2)


def measure_numerics(setting: PartSetting, findings: Findings) -> None:
    """Every way against the same reference of its precision."""
    shape = TINY if setting.small else NUMERIC
    device = setting.device
    base = save_base(shape, setting.folder / "base")
    batches = {size: packed_batch(shape, size, seed=size) for size in MICRO_BATCH_SIZES}
    findings.record(shape=repr(shape), documents_per_sequence=_documents_per_sequence(batches))
    worst: dict[str, float] = {}
    for kind in number_kinds(device):
        references: dict[int, tuple[float, Mapping[str, Tensor]]] = {}
        for attention in attentions(device, kind.precision):
            for recompute in RECOMPUTE:
                recipe = kind_recipe(shape, kind, attention, recompute)
                ours = build_adapted(base, recipe, shape.pieces, shape.vocab, device).to(device)
                perturb_adapters(ours)
                if not references:
                    plain = plain_model(base, ours, recipe, device)
                    references = {
                        size: _copied(plain_gradients(plain, ours, batch, device))
                        for size, batch in batches.items()
                    }
                for size, batch in batches.items():
                    loss, gradients = our_gradients(ours, model_inputs(batch, device))
                    name = f"{kind.name} {attention} micro-batch {size} recompute {recompute}"
                    error = _judge(findings, name, kind, (loss, gradients), references[size])
                    worst[kind.name] = max(worst.get(kind.name, 0.0), error)
                if recompute == RECOMPUTE[0]:
                    _plant_faults(findings, f"{kind.name} {attention}", kind, ours, batches[2], references[2])
    findings.record(worst_gradient_error=worst)
    findings.summarise(
        "worst gradient error against plain transformers: "
        + ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    )


def our_gradients(model: AdaptedModel, inputs: Mapping[str, Any]) -> tuple[float, dict[str, Tensor]]:
    """(summed loss, its gradients by name) of a forward and backward pass of ours."""
    model.train()
    for value in model.trained().values():
        value.grad = None
    loss = model(**inputs)
    loss.backward()
    gradients = {name: value.grad for name, value in model.trained().items() if value.grad is not None}
    return float(loss.detach()), gradients


def _judge(
    findings: Findings,
    name: str,
    kind: NumberKind,
    got: tuple[float, Mapping[str, Tensor]],
    expected: tuple[float, Mapping[str, Tensor]],
) -> float:
    loss_error, errors = _errors(got, expected)
    findings.expect(
        name,
        loss_error <= LOSS_LIMIT[kind.rounding] and max(errors.values()) <= GRADIENT_LIMIT[kind.rounding],
        loss_error=loss_error,
        loss_limit=LOSS_LIMIT[kind.rounding],
        gradient_error=errors,
        gradient_limit=GRADIENT_LIMIT[kind.rounding],
    )
    return max(errors.values())


def _plant_faults(
    findings: Findings,
    name: str,
    kind: NumberKind,
    model: AdaptedModel,
    batch: Batch,
    expected: tuple[float, Mapping[str, Tensor]],
) -> None:
    """Labels one place late, and documents that see each other, must both be beyond the limits."""
    device = model.output_table.base_VD.device
    late = {**batch, "labels": np.roll(batch["labels"], 1, axis=1)}
    unbroken = np.tile(np.arange(batch["labels"].shape[1]), (len(batch["labels"]), 1))
    faults = {
        "labels one place late": model_inputs(late, device),
        "documents joined": {**model_inputs(batch, device), "documents": documents_of(unbroken, device)},
    }
    for fault, inputs in faults.items():
        _, errors = _errors(our_gradients(model, inputs), expected)
        limit = GRADIENT_LIMIT[kind.rounding]
        findings.expect(
            f"control: {name}: {fault}", max(errors.values()) > limit, gradient_error=errors, more_than=limit
        )


def _errors(
    got: tuple[float, Mapping[str, Tensor]], expected: tuple[float, Mapping[str, Tensor]]
) -> tuple[float, dict[str, float]]:
    return abs(got[0] - expected[0]) / abs(expected[0]), relative_errors(got[1], expected[1])


def _copied(found: tuple[float, Mapping[str, Tensor]]) -> tuple[float, Mapping[str, Tensor]]:
    loss, gradients = found
    return loss, {name: value.detach().clone() for name, value in gradients.items()}


def _documents_per_sequence(batches: Mapping[int, Batch]) -> float:
    counts = [(batch["position_ids"] == 0).sum() / len(batch["position_ids"]) for batch in batches.values()]
    return float(np.mean(counts))
