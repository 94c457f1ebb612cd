"""The arithmetic behind MFU, beside torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from persianmind.estimate.flops import flops_per_token, peak_flops
from persianmind.model.adapted import AdaptedModel
from tests.estimate.models import ADDED, HIDDEN, LAYERS, MLP, VOCAB, tiny_model


def counted_flops(model: AdaptedModel, seq_len: int) -> int:
    """Forward and backward of one sequence, as torch counts them."""
    ids = torch.arange(seq_len)[None] % VOCAB
    with FlopCounterMode(display=False) as counter:
        loss = model(ids, torch.arange(seq_len)[None], torch.roll(ids, -1, dims=1))
        loss.backward()
    return int(counter.get_total_flops())


def test_peaks_by_the_name_that_the_driver_has() -> None:
    assert peak_flops("NVIDIA GeForce RTX 3090", "bf16") == pytest.approx(71e12, rel=0.01)
    assert peak_flops("NVIDIA GeForce RTX 3090 Ti", "bf16") == pytest.approx(80e12, rel=0.01)
    assert peak_flops("Tesla T4", "bf16") is None
    assert peak_flops("cpu", "bf16") is None


@pytest.mark.parametrize("train_embeddings", ["new", "all"])
@pytest.mark.parametrize("tied", [False, True])
def test_flops_agree_with_torchs_own_counter(tied: bool, train_embeddings: str) -> None:
    """Torch counts a L + b L^2 over a sequence of L tokens, attention over the whole square; a causal one
    needs half of b. Norms are no matmuls for torch: less than 1% here."""
    compare(tiny_model(tied, "cpu", train_embeddings))


@pytest.mark.parametrize("added", [0, ADDED])
def test_flops_of_layers_that_no_gradient_comes_to(added: int) -> None:
    """The lowest adapted layer's q, k and v need no gradient of their input either, which is a part of one
    layer and is not left out of the count."""
    model = tiny_model(False, "cpu", layers=6, adapted="[4, 5]", added=added)
    compare(model, 0.01 if added else 0.035)
    everywhere = tiny_model(False, "meta", layers=6, added=added)
    assert flops_per_token(model, 64) < (0.75 if added == 0 else 0.99) * flops_per_token(everywhere, 64)


def compare(model: AdaptedModel, tolerance: float = 0.01) -> None:
    short, long = counted_flops(model, 64), counted_flops(model, 128)
    b = (long / 128 - short / 64) / 64
    a = short / 64 - 64 * b
    for seq_len in (64, 128, 1024):
        assert flops_per_token(model, seq_len) == pytest.approx(a + b * seq_len / 2, rel=tolerance)


@pytest.mark.parametrize("tied", [False, True])
def test_flops_of_a_small_model_counted_by_hand(tied: bool) -> None:
    model = tiny_model(tied, "meta")
    layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * MLP + 2 * HIDDEN  # projections, MLP, norms
    lora = 4 * (4 * (HIDDEN + HIDDEN)) + 3 * 4 * (HIDDEN + MLP)  # rank 4
    trained = LAYERS * lora + ADDED * HIDDEN
    weights = LAYERS * layer + HIDDEN + VOCAB * HIDDEN + trained
    attention = 6 * LAYERS * HIDDEN * 64
    assert flops_per_token(model, 64) == 4 * weights + 2 * trained + attention
