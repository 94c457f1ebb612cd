"""Sentence vectors: hidden states of every layer, averaged over a sentence's tokens.

Shape legend: B sentences, L tokens, D hidden size, H layers + 1 (the embeddings first).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from persianmind.evaluate.evaluated import EvaluatedModel

Vectors = NDArray[np.float32]


@torch.no_grad()
def sentence_vectors(model: EvaluatedModel, texts: Sequence[str]) -> Vectors:
    """Mean-pooled hidden states of each text, its own tokens alone, normalised to length 1.

    Returns:
        float32 [texts, H, D].
    """
    encoded = model.tokenizer.encode(texts)
    lead = model.tokenizer.bos_id
    rows = [tuple(ids[: model.window - 1]) or (model.tokenizer.eos_id,) for ids in encoded]
    found: dict[int, Vectors] = {}
    for batch in _batches(rows, model.max_batch_tokens):
        model.on_progress()
        longest = max(len(rows[number]) for number in batch) + (lead is not None)
        ids_BL = torch.zeros(len(batch), longest, dtype=torch.int64)
        own_BL = torch.zeros(len(batch), longest, dtype=torch.bool)
        for place, number in enumerate(batch):
            ids = rows[number] if lead is None else (lead, *rows[number])
            ids_BL[place, : len(ids)] = torch.tensor(ids)
            own_BL[place, len(ids) - len(rows[number]) : len(ids)] = True
        device = model.causal_lm.device
        positions_BL = torch.arange(longest, device=device).expand(len(batch), longest)
        output = model.causal_lm.get_decoder()(
            input_ids=ids_BL.to(device), position_ids=positions_BL, use_cache=False, output_hidden_states=True
        )
        weights_BL1 = (own_BL / own_BL.sum(dim=1, keepdim=True)).to(device).unsqueeze(-1)
        pooled_HBD = torch.stack([(state.float() * weights_BL1).sum(dim=1) for state in output.hidden_states])
        unit_BHD = torch.nn.functional.normalize(pooled_HBD, dim=-1).transpose(0, 1)
        found |= dict(zip(batch, unit_BHD.cpu().numpy(), strict=True))
    return np.stack([found[number] for number in range(len(rows))])


def _batches(rows: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Numbers of rows of like length."""
    batches: list[list[int]] = []
    for number in sorted(range(len(rows)), key=lambda one: len(rows[one]), reverse=True):
        longest = len(rows[batches[-1][0]]) if batches else 0
        if not batches or (len(batches[-1]) + 1) * (longest + 1) > max_tokens:
            batches.append([])
        batches[-1].append(number)
    return batches
