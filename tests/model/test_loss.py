"""The chunked loss against torch's own cross-entropy over the whole table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from persianmind.model import loss as loss_module
from persianmind.model.loss import summed_cross_entropy

TOKENS, WIDTH, BASE, ADDED = 70, 24, 50, 11


def _case(dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, TOKENS // 2, WIDTH, generator=generator).to(dtype)
    base = torch.randn(BASE, WIDTH, generator=generator).to(dtype)
    new = torch.randn(ADDED, WIDTH, generator=generator).to(dtype)
    labels = torch.randint(0, BASE + ADDED, (2, TOKENS // 2), generator=generator)
    labels[0, :9] = -100
    labels[1, -3:] = -100
    return hidden, base, new, labels


@pytest.mark.parametrize("chunk", [1, 7, 512])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_equals_plain_cross_entropy_and_its_gradients(
    dtype: torch.dtype, tolerance: float, chunk: int
) -> None:
    ours = [value.clone().requires_grad_() if value.is_floating_point() else value for value in _case(dtype)]
    plain = [value.clone().requires_grad_() if value.is_floating_point() else value for value in _case(dtype)]
    loss = summed_cross_entropy(ours[0], ours[3], ours[1], ours[2], chunk_tokens=chunk)
    logits = functional.linear(plain[0].float(), torch.cat([plain[1], plain[2]]).float())
    expected = functional.cross_entropy(
        logits.flatten(0, 1), plain[3].flatten(), ignore_index=-100, reduction="sum"
    )
    (loss / 61).backward()
    (expected / 61).backward()
    assert loss.dtype == torch.float32
    assert abs(float(loss - expected)) <= tolerance * float(expected)
    for mine, other in zip(ours[:3], plain[:3], strict=True):
        assert mine.grad is not None and other.grad is not None
        error = (mine.grad.float() - other.grad.float()).norm() / other.grad.float().norm()
        assert float(error) <= tolerance


def test_frozen_base_embeddings_get_no_gradient() -> None:
    hidden, base, new, labels = _case(torch.float32)
    hidden.requires_grad_()
    new.requires_grad_()
    summed_cross_entropy(hidden, labels, base, new).backward()
    assert base.grad is None and new.grad is not None and hidden.grad is not None


def test_base_embeddings_alone_ignore_the_new_ones() -> None:
    hidden, base, new, labels = _case(torch.float32)
    labels = labels.clamp(max=BASE - 1)
    alone = summed_cross_entropy(hidden, labels, base, None)
    assert float(alone) < float(summed_cross_entropy(hidden, labels, base, new))


def test_no_target_gives_zero_and_still_backpropagates() -> None:
    hidden, base, new, labels = _case(torch.float32)
    hidden.requires_grad_()
    loss = summed_cross_entropy(hidden, torch.full_like(labels, -100), base, new)
    loss.backward()
    assert float(loss) == 0.0
    assert hidden.grad is not None and float(hidden.grad.abs().sum()) == 0.0


def test_no_tokens_times_vocabulary_tensor_is_made() -> None:
    """Largest tensor made while the loss runs is chunk x vocabulary, not tokens x vocabulary."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    tokens, vocab, chunk = 256, 2000, 16
    hidden = torch.randn(tokens, 8, requires_grad=True)
    with Watch():
        summed_cross_entropy(
            hidden, torch.arange(tokens), torch.randn(vocab, 8), None, chunk_tokens=chunk
        ).backward()
    assert chunk * vocab <= largest < tokens * vocab / 4


def _loss_and_gradients(dtype: torch.dtype, vocab: int, added: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden, base, new = (
        torch.randn(rows, 96, generator=generator).to(dtype).requires_grad_() for rows in (130, vocab, added)
    )
    labels = torch.randint(0, vocab + added, (130,), generator=generator)
    transform = loss_module.LogitTransform(scale=0.5, softcap=30.0)
    loss = summed_cross_entropy(hidden, labels, base, new, chunk_tokens=48, transform=transform)
    loss.backward()
    gradients = [one.grad for one in (hidden, base, new) if one.grad is not None]
    assert len(gradients) == 3
    return [loss.detach(), *gradients]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("vocab", "added"), [(515, 7), (1024, 41), (640, 64)])
def test_aligned_logits_change_no_bit(
    vocab: int, added: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned = _loss_and_gradients(dtype, vocab, added)
    monkeypatch.setattr(loss_module, "COLUMNS", 1)
    plain = _loss_and_gradients(dtype, vocab, added)
    assert all(torch.equal(one, other) for one, other in zip(aligned, plain, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_columns_beyond_the_vocabulary_are_never_read(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is allocated begins as NaN: read, it would be in the results."""
    expected = _loss_and_gradients(dtype, 515, 7)
    ordinary, made = torch.Tensor.new_empty, []

    def poisoned(self: torch.Tensor, *size: Any, **options: Any) -> torch.Tensor:
        made.append(ordinary(self, *size, **options).fill_(float("nan")))
        return made[-1]

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    found = _loss_and_gradients(dtype, 515, 7)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert {one.shape[1] for one in made} == {576}
    assert all(bool(one[:, 522:].isnan().all()) for one in made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_matmul_with_logits_has_an_aligned_leading_dimension(dtype: torch.dtype) -> None:
    """Control: the matmuls of a vocabulary of 522 without it would have leading dimensions of 522."""
    leading: set[int] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if "mm" in str(func):
                for one in (*args, *(kwargs or {}).values()):
                    if isinstance(one, torch.Tensor) and {515, 7} & set(one.shape) and 96 not in one.shape:
                        leading.add(max(one.stride()))
            return func(*args, **(kwargs or {}))

    with Watch():
        _loss_and_gradients(dtype, 515, 7)
    assert leading == {576}
