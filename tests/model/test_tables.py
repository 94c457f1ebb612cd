"""Split tables: lookups, gradients, first values of new embeddings."""

from __future__ import annotations

import pytest
import torch

from persianmind.model.init import initial_embeddings
from persianmind.model.tables import SplitEmbedding, SplitHead, SplitTable


def test_lookup_and_head_equal_the_folded_table() -> None:
    table = SplitTable(torch.randn(10, 4), torch.randn(3, 4))
    ids = torch.tensor([[0, 9, 10, 12, 3]])
    folded = table.folded()
    assert torch.equal(SplitEmbedding(table)(ids), folded[ids])
    hidden = torch.randn(2, 5, 4)
    assert torch.allclose(SplitHead(table)(hidden), hidden @ folded.T, atol=1e-6)


def test_only_looked_up_new_embeddings_get_a_gradient() -> None:
    table = SplitTable(torch.randn(10, 4), torch.randn(3, 4))
    SplitEmbedding(table)(torch.tensor([[0, 11, 11, 5]])).sum().backward()
    assert table.new_AD is not None and table.new_AD.grad is not None
    assert table.new_AD.grad.abs().sum(dim=1).tolist() == [0.0, 8.0, 0.0]
    assert table.base_VD.grad is None


def test_without_new_embeddings_it_is_an_ordinary_table() -> None:
    table = SplitTable(torch.randn(10, 4), None)
    ids = torch.tensor([[1, 2]])
    assert table.added_vocab == 0
    assert torch.equal(SplitEmbedding(table)(ids), table.base_VD[ids])
    assert SplitHead(table)(torch.randn(1, 4)).shape == (1, 10)


def test_subword_mean_is_the_mean_of_the_old_spelling() -> None:
    base = torch.randn(20, 6)
    embeddings = initial_embeddings(base, [[1, 2, 3], [7], []], "subword-mean", torch.Generator())
    assert torch.allclose(embeddings[0], base[[1, 2, 3]].mean(dim=0))
    assert torch.equal(embeddings[1], base[7])
    assert torch.allclose(embeddings[2], base.mean(dim=0))


@pytest.mark.parametrize("method", ["mean", "normal", "random"])
def test_other_methods_have_the_moments_they_promise(method: str) -> None:
    mixing = torch.randn(8, 8, generator=torch.Generator().manual_seed(2))
    base = torch.randn(4000, 8, generator=torch.Generator().manual_seed(1)) @ mixing + 3.0
    embeddings = initial_embeddings(base, [[0]] * 4000, method, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    if method == "random":
        assert abs(float(embeddings.std()) - 0.02) < 0.002 and abs(float(embeddings.mean())) < 0.002
        return
    assert torch.allclose(embeddings.mean(dim=0), base.mean(dim=0), atol=0.3)
    expected = base.T.cov() if method == "normal" else torch.zeros(8, 8)
    assert float((embeddings.T.cov() - expected).norm()) <= 0.1 * float(base.T.cov().norm())


def test_embeddings_are_deterministic_by_the_generator() -> None:
    base = torch.randn(30, 4)
    first, second = (
        initial_embeddings(base, [[0]] * 5, "normal", torch.Generator().manual_seed(9)) for _ in range(2)
    )
    other = initial_embeddings(base, [[0]] * 5, "normal", torch.Generator().manual_seed(10))
    assert torch.equal(first, second) and not torch.equal(first, other)
