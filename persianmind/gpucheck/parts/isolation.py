"""No document of a pack depends on another: the gradient is exactly zero, whatever the attention."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from persianmind.engine.base import Batch
from persianmind.gpucheck.findings import Findings
from persianmind.gpucheck.kinds import attentions, kind_recipe, number_kinds
from persianmind.gpucheck.setting import PartSetting
from persianmind.gpucheck.shapes import NUMERIC, TINY, packed_batch, perturb_adapters, save_base
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.documents import documents_of, to_device


def measure_isolation(setting: PartSetting, findings: Findings) -> None:
    """Every document of a micro-batch of one and of two sequences, by each attention."""
    shape = TINY if setting.small else NUMERIC
    device = setting.device
    base = save_base(shape, setting.folder / "base")
    documents = 0
    for kind in number_kinds(device):
        if kind.quantize != "none":
            continue  # attention is that of the precision
        for attention in attentions(device, kind.precision):
            recipe = kind_recipe(shape, kind, attention)
            model = build_adapted(base, recipe, shape.pieces, shape.vocab, device).to(device)
            perturb_adapters(model)
            for size in (1, 2):
                batch = packed_batch(shape, size, seed=10 + size)
                name = f"{kind.name} {attention} micro-batch {size}"
                leak, count = largest_leak(model, batch, batch["position_ids"])
                documents += count
                findings.expect(name, leak == 0.0, gradient=leak, documents=count)
                joined = np.tile(np.arange(shape.seq_len), (size, 1))
                control, _ = largest_leak(model, batch, joined)
                findings.expect(f"control: {name}: documents joined", control > 0.0, gradient=control)
    findings.summarise(
        f"gradients between {documents} documents and all others of their micro-batch are exactly 0"
    )


def largest_leak(model: AdaptedModel, batch: Batch, positions_BL: NDArray[np.int64]) -> tuple[float, int]:
    """The largest gradient of a document's hidden states with respect to the embeddings outside of it.

    Args:
        positions_BL: what attention is given; the documents are those of the batch.

    Returns:
        (gradient, number of documents).
    """
    model.eval()
    device = model.output_table.base_VD.device
    embed: Any = model.causal_lm.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        embeddings_BLD = embed(to_device(batch["input_ids"], device))
    embeddings_BLD.requires_grad_(True)
    hidden_BLD = model.hidden_states(
        None,
        to_device(batch["position_ids"], device),
        documents_of(positions_BL, device),
        inputs_embeds=embeddings_BLD,
    )
    leak, count = 0.0, 0
    for sequence, positions in enumerate(batch["position_ids"]):
        for start, stop in pairwise([*np.flatnonzero(positions == 0).tolist(), len(positions)]):
            inside = hidden_BLD[sequence, start:stop].float().pow(2).sum()
            (gradient_BLD,) = torch.autograd.grad(inside, embeddings_BLD, retain_graph=True)
            gradient_BLD[sequence, start:stop] = 0.0
            leak = max(leak, float(gradient_BLD.float().abs().max()))
            count += 1
    return leak, count
