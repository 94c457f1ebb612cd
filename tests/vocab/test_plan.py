"""Which number of new pieces pays: the arithmetic of `vocab plan`."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.common.errors import VocabError
from persianmind.language.persian import PROFILE as PERSIAN
from persianmind.vocab.build import read_corpus
from persianmind.vocab.families import open_base
from persianmind.vocab.pieces import learn_exactly
from persianmind.vocab.plan import ModelShape, make_plan, prefix, read_shape
from tests.vocab.helpers import package_texts


@pytest.mark.parametrize("name", ["smollm2", "mistral"])
def test_a_shorter_training_is_the_start_of_a_longer_one(name: str, bases: dict[str, Path]) -> None:
    base = open_base(bases[name])
    units = read_corpus(base, lambda: iter(package_texts()[:300]), PERSIAN).units
    longer = learn_exactly(base, units, 400, PERSIAN)
    assert prefix(longer, 150) == learn_exactly(base, units, 150, PERSIAN)


def test_plan_arithmetic(smollm2: Path) -> None:
    base = open_base(smollm2)
    corpus = read_corpus(base, lambda: iter(package_texts()[:300]), PERSIAN)
    shape = ModelShape(hidden=100, body_parameters=10**8, tied=False)
    plan = make_plan(base, corpus, [400, 100], shape, corpus_words=10**6, ranks=4, gpu_gib=8, profile=PERSIAN)
    none, few, many = plan.choices
    assert [choice.new_tokens for choice in plan.choices] == [0, 100, 400]
    assert (none.relative_cost, none.added_parameters, none.tokens_saved) == (1.0, 0, 0.0)
    assert none.tokens_per_word > few.tokens_per_word > many.tokens_per_word
    assert many.added_parameters == 400 * 100 * 2
    assert many.corpus_tokens == pytest.approx(10**6 * many.tokens_per_word, rel=1e-4)
    flops = (10**8 + (49_152 + 400) * 100) / (10**8 + 49_152 * 100)
    expected = flops * many.tokens_per_word / none.tokens_per_word
    assert many.relative_cost == pytest.approx(expected, abs=2e-4)
    assert plan.best == 400
    huge = ModelShape(hidden=100, body_parameters=10**11, tied=False)
    assert make_plan(base, corpus, [100], huge, corpus_words=10**6, profile=PERSIAN).best == 0
    assert (
        make_plan(base, corpus, [400], shape, corpus_words=100, profile=PERSIAN).best == 0
    )  # embeddings that are never trained


def test_shape_of_a_real_model(tmp_path: Path) -> None:
    """Against transformers' own count of parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=500, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    config.save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    assert shape == ModelShape(64, sum(p.numel() for p in model.parameters()) - 500 * 64, tied=True)
    assert read_shape(tmp_path / "none") is None
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(VocabError, match="--hidden"):
        read_shape(tmp_path)
