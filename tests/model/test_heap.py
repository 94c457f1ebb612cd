"""Freed memory between living tensors goes back to the system, and the tensors stay as they are."""

from __future__ import annotations

import psutil
import pytest
import torch

from persianmind.model import heap

MIB = 1 << 20


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def fragmented(count: int = 300) -> list[torch.Tensor]:
    """A tenth of many blocks; what lay between them was freed."""
    larger = torch.ones(4 * MIB, dtype=torch.uint8)
    del larger  # from here on the C library takes blocks up to this size from its heap
    blocks = [torch.ones(MIB, dtype=torch.uint8) for _ in range(count)]
    return blocks[::10]


def test_pages_between_tensors_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fragmented()
    before = resident()
    monkeypatch.setattr(heap, "LEAST_FREE_BYTES", 1 << 50)
    assert not heap.give_back_freed() and resident() > before - 20 * MIB  # control
    monkeypatch.undo()
    assert heap.give_back_freed()
    assert resident() < before - 200 * MIB
    assert all(int(block.sum()) == MIB for block in kept)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("no such library")

    heap._library.cache_clear()
    monkeypatch.setattr(heap.ctypes, "CDLL", missing)
    try:
        assert not heap.give_back_freed()
    finally:
        heap._library.cache_clear()


def test_a_forward_pass_that_trains_gives_back_and_one_that_scores_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from persianmind.model import adapted
    from tests.model.helpers import BASE_VOCAB, PIECES, make_recipe, packed_batch
    from tests.model.test_attention import make_model

    calls: list[int] = []
    monkeypatch.setattr(adapted, "give_back_freed", lambda: calls.append(1))
    model = adapted.adapt(make_model("llama"), make_recipe(), PIECES, BASE_VOCAB)
    with torch.no_grad():
        model(**packed_batch(vocab=BASE_VOCAB))
    assert calls == []
    model(**packed_batch(vocab=BASE_VOCAB))
    assert calls == [1]
