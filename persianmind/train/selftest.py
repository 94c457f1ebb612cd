"""Self-tests on the real model and real ranks before step 1: a few seconds that save a wasted week.

1. A pack does not leak: changing one document of a sequence leaves the next one's hidden states alone.
2. The gradient of the sharded step equals the one a single process computes over the same sequences.
3. One step moves adapters and new embeddings, and nothing frozen.

They run on a throw-away engine; every trained value is put back afterwards.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from persianmind.common.errors import SelfTestError
from persianmind.engine.base import Batch, Engine
from persianmind.engine.groups import GROUPS
from persianmind.model.adapted import AdaptedModel

logger = logging.getLogger(__name__)
TEST_TOKENS = 64
GRADIENT_TOLERANCE = {torch.bfloat16: 3e-2, torch.float32: 1e-4}  # relative L2 error over one group
LEAK_TOLERANCE = {torch.bfloat16: 1e-2, torch.float32: 1e-5}  # relative to the largest hidden value


def run_self_tests(
    model: AdaptedModel, open_engine: Callable[[], Engine], batches: Sequence[Batch], device: torch.device
) -> None:
    """Runs all three.

    Args:
        open_engine: makes the throw-away engine around `model`; all ranks together.
        batches: one [1, L] batch for each rank, the same list on every rank.

    Raises:
        SelfTestError: one failed; training would not do what it says.
    """
    batches = [{name: array[:, :TEST_TOKENS] for name, array in batch.items()} for batch in batches]
    saved = {name: value.detach().clone() for name, value in model.trained().items()}
    model.to(device).eval()
    _perturb(model)
    leak = check_isolation(model, batches[0], device)
    logger.info(f"self-test: packed documents do not see each other (largest change {leak:.1e})")
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
    """Largest relative change of the second document's hidden states when the first one changes.

    The same change with unbroken positions must be visible, or the test could not fail.

    Raises:
        SelfTestError: documents leak into each other.
    """
    ids = torch.from_numpy(batch["input_ids"][:, :64].copy()).to(device)
    half = ids.shape[1] // 2
    changed = ids.clone()
    changed[:, :half] = (ids[:, :half] + 1) % model.input_table.base_vocab
    packed = torch.cat([torch.arange(half), torch.arange(ids.shape[1] - half)]).unsqueeze(0).to(device)
    unbroken = torch.arange(ids.shape[1]).unsqueeze(0).to(device)

    def second_document(tokens: Tensor, positions: Tensor) -> Tensor:
        decoder: Any = model.causal_lm.get_decoder()  # type: ignore[operator]
        with torch.no_grad():
            output = decoder(input_ids=tokens, position_ids=positions, use_cache=False)
        hidden: Tensor = output.last_hidden_state[:, half:].float()
        return hidden

    before = second_document(ids, packed)
    change = float((second_document(changed, packed) - before).abs().max() / before.abs().max())
    control = (second_document(changed, unbroken) - second_document(ids, unbroken)).abs().max()
    if change > LEAK_TOLERANCE[model.output_table.base_VD.dtype] or float(control) == 0.0:
        raise SelfTestError(
            f"packed documents see each other (relative change {change:.2e}): this attention implementation "
            "ignores position_ids; use sdpa, or report the transformers version"
        )
    return change


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
        tensors = {name: torch.from_numpy(array.copy()).to(device) for name, array in batch.items()}
        (model(**tensors) / targets).backward()
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
    if reference_sq == 0.0 or not error <= GRADIENT_TOLERANCE[engine.model.output_table.base_VD.dtype]:
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
