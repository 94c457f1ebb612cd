"""Self-tests on the real model and real ranks before step 1: a few seconds that save a wasted week.

1. A pack does not leak: no document depends on another one of its micro-batch.
2. The gradient of the sharded step equals the one a single process computes over the same sequences.
3. One step moves adapters and new embeddings, and nothing frozen.

These run on a throw-away engine; every trained value is put back afterwards. A fourth, that loss and
gradients are those of the base's own forward, is in selftest_forward.py.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persianmind.common.errors import SelfTestError
from persianmind.engine.base import Batch, Engine
from persianmind.engine.groups import GROUPS
from persianmind.model.adapted import AdaptedModel
from persianmind.model.documents import documents_of, model_inputs, to_device
from persianmind.model.int8 import int8_projections, round_to_nearest
from persianmind.train.sample import moving_sequence

logger = logging.getLogger(__name__)
TEST_TOKENS = 64
GRADIENT_TOLERANCE = {"rounded": 3e-2, "fp32": 1e-4}  # relative L2 error over one group


def run_self_tests(
    model: AdaptedModel, open_engine: Callable[[], Engine], batches: Sequence[Batch], device: torch.device
) -> None:
    """Runs all three.

    Args:
        open_engine: makes the throw-away engine around `model`; all ranks together.
        batches: a micro-batch [B, L] for each rank, the same list on every rank.

    Raises:
        SelfTestError: one failed; training would not do what it says.
    """
    saved = {name: value.detach().clone() for name, value in model.trained().items()}
    model.to(device).train()  # with recompute, as in a step
    _perturb(model)
    with round_to_nearest(model):
        leak = check_isolation(model, batches[0], device)
    logger.info(f"self-test: packed documents do not see each other (gradient {leak:.1f})")
    model.eval()
    table = model.input_table
    batches = [moving_sequence(one, TEST_TOKENS, table.base_vocab, table.added_vocab) for one in batches]
    reference = _single_process_gradients(model, batches, device)
    engine = open_engine()
    error = _check_gradients(engine, batches, reference)
    ranks = engine.ranks.world_size
    logger.info(f"self-test: the gradient over {ranks} ranks is that of one process (error {error:.1e})")
    moved = _check_movement(engine, model)
    logger.info(f"self-test: a step moves {moved} trained tensors and nothing frozen")
    engine.close()
    with torch.no_grad():
        for name, value in model.trained().items():
            value.copy_(saved[name])
            value.grad = None
    model.train()


def check_isolation(model: AdaptedModel, batch: Batch, device: torch.device) -> float:
    """Largest gradient of one document's hidden states with respect to the embeddings of all others: exactly
    0.0, since a path that is not there has no rounding either.

    The document joined to the one before it must show a gradient, or the test could not fail.

    Args:
        batch: [B, L], a micro-batch as it is trained; cut in halves where no sequence has two documents.

    Raises:
        SelfTestError: documents leak into each other.
    """
    positions_BL = batch["position_ids"].copy()
    sequence, start, stop = _document_after_another(positions_BL)
    joined_BL = positions_BL.copy()
    joined_BL[sequence, start:stop] += positions_BL[sequence, start - 1] + 1
    leak = _gradient_from_outside(model, batch, positions_BL, (sequence, start, stop), device)
    control = _gradient_from_outside(model, batch, joined_BL, (sequence, start, stop), device)
    if leak != 0.0 or not control > 0.0:
        raise SelfTestError(
            f"packed documents see each other (gradient {leak:.2e} where it must be 0, {control:.2e} where "
            "they are one): this attention does not follow documents; use train.attention=sdpa, or report "
            "the versions of torch and transformers"
        )
    return leak


def _document_after_another(positions_BL: NDArray[np.int64]) -> tuple[int, int, int]:
    """(sequence, start, stop) of the longest document with another one before it; cuts the last sequence in
    two where there is none."""
    length = positions_BL.shape[1]
    found = []
    for sequence, positions_L in enumerate(positions_BL):
        starts = [*np.flatnonzero(positions_L == 0).tolist(), length]
        found += [(stop - start, sequence, start, stop) for start, stop in pairwise(starts) if start]
    if found:
        return max(found)[1:]
    half = length // 2
    positions_BL[-1, half:] -= positions_BL[-1, half]
    return len(positions_BL) - 1, half, length


def _gradient_from_outside(
    model: AdaptedModel,
    batch: Batch,
    positions_BL: NDArray[np.int64],
    document: tuple[int, int, int],
    device: torch.device,
) -> float:
    """The largest gradient of one document's hidden states with respect to embeddings outside of it."""
    sequence, start, stop = document
    ids_BL = to_device(batch["input_ids"], device)
    with torch.no_grad():
        embeddings_BLD = model.causal_lm.get_input_embeddings()(ids_BL)  # type: ignore[operator]
    embeddings_BLD.requires_grad_(True)
    hidden_BLD = model.hidden_states(
        None,
        to_device(positions_BL, device),
        documents_of(positions_BL, device),
        inputs_embeds=embeddings_BLD,
    )
    summed = hidden_BLD[sequence, start:stop].float().pow(2).sum()
    (gradient_BLD,) = torch.autograd.grad(summed, embeddings_BLD)
    gradient_BLD[sequence, start:stop] = 0.0
    return float(gradient_BLD.float().abs().max())


def _perturb(model: AdaptedModel) -> None:
    """Gives LoRA's zero B factors small values, equal on all ranks: with zeros A would get no gradient."""
    generator = torch.Generator().manual_seed(20240112)
    with torch.no_grad():
        for name, value in model.trained().items():
            if "lora_B" in name:
                noise = torch.randn(value.shape, generator=generator) * 0.02
                value.copy_(noise.to(value.dtype))


def _single_process_gradients(
    model: AdaptedModel, batches: Sequence[Batch], device: torch.device
) -> dict[str, Tensor]:
    """fp32 gradients of the mean loss over all batches, by plain autograd on this rank alone."""
    targets = max(1, sum(int((batch["labels"] >= 0).sum()) for batch in batches))
    sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in model.trained().items()}
    for batch in batches:
        (model(**model_inputs(batch, device)) / targets).backward()
        for name, value in model.trained().items():
            if value.grad is not None:
                sums[name] += value.grad.float()
            value.grad = None
    return sums


def _check_gradients(engine: Engine, batches: Sequence[Batch], reference: Mapping[str, Tensor]) -> float:
    targets = max(1, sum(int((batch["labels"] >= 0).sum()) for batch in batches))
    difference_sq, reference_sq = 0.0, 0.0
    for name, got in engine.reduced_gradients([batches[engine.ranks.rank]], scale=1 / targets):
        if got is None:
            raise SelfTestError(f"the sharded step has no gradient for {name}")
        difference_sq += float((got.float() - reference[name]).pow(2).sum())
        reference_sq += float(reference[name].pow(2).sum())
    error = math.sqrt(difference_sq / max(reference_sq, 1e-30))
    # A last bit of a gradient decides here and there how int8 rounds it.
    rounds = engine.model.output_table.base_VD.dtype == torch.bfloat16 or int8_projections(engine.model)
    if reference_sq == 0.0 or not error <= GRADIENT_TOLERANCE["rounded" if rounds else "fp32"]:
        raise SelfTestError(
            f"the gradient over {engine.ranks.world_size} ranks differs from the single-process one by "
            f"{error:.2e} (relative); the reduction is wrong, check the engine's version and its config"
        )
    return error


def _check_movement(engine: Engine, model: AdaptedModel) -> int:
    # Hashes, not copies: a second 7B model would not fit beside the first.
    before = {name: _hash(value) for name, value in model.named_parameters()}
    engine.set_rates(dict.fromkeys(GROUPS, 1e-2))
    engine.apply()
    changed = {name for name, value in model.named_parameters() if _hash(value) != before[name]}
    trained = set(model.trained())
    if stuck := sorted(trained - changed):
        raise SelfTestError(f"a step did not move {len(stuck)} trained tensors, the first is {stuck[0]}")
    if moved := sorted(changed - trained):
        raise SelfTestError(f"a step moved {len(moved)} frozen tensors, the first is {moved[0]}")
    return len(trained)


def _hash(value: Tensor) -> int:
    return int(torch.hash_tensor(value.detach()).view(torch.int64))
