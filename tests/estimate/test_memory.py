"""Bytes of the state, beside a sum over the tensors of a real tiny model and a real optimizer."""

from __future__ import annotations

import pytest
import torch

from persianmind.estimate.memory import (
    checkpoint_bytes,
    gradient_and_optimizer_bytes_per_rank,
    weight_bytes_per_rank,
)
from persianmind.model.adapted import AdaptedModel
from tests.estimate.models import tiny_model

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def stepped(model: AdaptedModel) -> tuple[int, int]:
    """Bytes of (gradients, fp32 masters and moments) after one step of mixed precision with Adam."""
    trained = list(model.trained().values())
    ids = torch.arange(32)[None]
    model(ids, ids, torch.roll(ids, -1, dims=1)).backward()
    masters = [torch.nn.Parameter(value.detach().float()) for value in trained]
    for master, value in zip(masters, trained, strict=True):
        assert value.grad is not None
        master.grad = value.grad.float()
    optimizer = torch.optim.AdamW(masters)
    optimizer.step()
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    gradients = [value.grad for value in trained if value.grad is not None]
    return size(gradients), size([*masters, *moments])


def size(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_bytes_are_those_of_real_tensors(precision: str) -> None:
    model = tiny_model(False, "cpu").to(DTYPES[precision])
    weights = list(model.parameters())
    trained = sum(value.numel() for value in model.trained().values())
    gradients, optimizer = stepped(model)
    assert weight_bytes_per_rank(sum(value.numel() for value in weights), precision) == size(weights)
    assert gradient_and_optimizer_bytes_per_rank(trained, precision, 1) == gradients + optimizer
    assert checkpoint_bytes(trained, precision) == optimizer + size(list(model.trained().values()))


def test_only_masters_and_moments_are_sharded() -> None:
    one, three = (gradient_and_optimizer_bytes_per_rank(1000, "bf16", ranks) for ranks in (1, 3))
    assert (one, three) == (14_000, 6_000)
    assert gradient_and_optimizer_bytes_per_rank(1000, "bf16", 7) == 2000 + 1715  # 12,000 / 7, rounded up
