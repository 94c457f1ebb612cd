"""The vocabulary tables of a loaded base, split where the new embeddings begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from persianmind.common.errors import BaseModelError
from persianmind.model.families import embedding_scale, family_of
from persianmind.model.init import initial_embeddings
from persianmind.model.tables import SplitEmbedding, SplitHead, SplitTable, new_bias
from persianmind.recipe import Recipe


def split_tables(
    causal_lm: Any,
    recipe: Recipe,
    pieces: Sequence[Sequence[int]],
    base_vocab: int,
    generator: torch.Generator,
) -> None:
    """Replaces embeddings and head of a causal LM. What its table has beyond its tokenizer (padding) is
    dropped.

    Raises:
        BaseModelError: the table is smaller than the tokenizer.
    """
    tied = bool(causal_lm.config.tie_word_embeddings)
    input_VD = causal_lm.get_input_embeddings().weight.detach()
    if input_VD.shape[0] < base_vocab:
        raise BaseModelError(
            f"the base has {input_VD.shape[0]} embeddings but its tokenizer has {base_vocab} ids; "
            "the tokenizer does not belong to this model"
        )
    method = recipe.vocab.initialise
    input_VD = input_VD[:base_vocab].clone()
    input_table = SplitTable(
        input_VD, initial_embeddings(input_VD, pieces, method, generator) if pieces else None
    )
    output_table, head = input_table, causal_lm.get_output_embeddings()
    if not tied:
        output_VD = head.weight.detach()[:base_vocab].clone()
        new_AD = initial_embeddings(output_VD, pieces, method, generator) if pieces else None
        output_table = SplitTable(output_VD, new_AD)
    bias = None
    if family_of(causal_lm.config).head_bias:
        base_bias_V = head.bias.detach()[:base_vocab]
        bias = torch.cat([base_bias_V, new_bias(base_bias_V).expand(output_table.added_vocab)])
    causal_lm.set_input_embeddings(SplitEmbedding(input_table, embedding_scale(causal_lm.config)))
    causal_lm.set_output_embeddings(SplitHead(output_table, bias))
