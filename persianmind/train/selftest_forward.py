"""The fourth self-test: our path from ids to loss is the base's own, on the run's device, before step 1.

The base's own path is transformers' forward of the model, its own attention, and its own embedding and output
modules, a document at a time. Twice:

1. as the base was loaded, before anything of it is replaced, over base ids;
2. over all ids, with adapters that are not zero, and tables of the tokens used: the loss, and the gradient of
   everything that trains.

Shape legend: U tokens used, D hidden size.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from persianmind.common.errors import SelfTestError
from persianmind.model.adapted import AdaptedModel
from persianmind.model.documents import model_inputs
from persianmind.model.int8 import round_to_nearest
from persianmind.model.loss import IGNORED
from persianmind.model.tables import SplitEmbedding, SplitHead, SplitTable
from persianmind.train.sample import in_base_ids

logger = logging.getLogger(__name__)
SampledDocuments = Sequence[NDArray[np.int64]]
# Relative errors allowed: of the loss, of a gradient (L2). In int8 a difference of one bf16 rounding in an
# input moves it by a whole int8 step, layer after layer: 3.5e-2 on SmolLM2's 30 layers.
EXACT, ROUNDED, ROUNDED_TO_INT8 = (1e-5, 1e-3), (5e-3, 3e-2), (5e-3, 8e-2)
PERTURBATION = 1e-2
PADDING = 64


@dataclass(frozen=True, slots=True)
class BaseForward:
    """What the base makes of some base ids by itself.

    documents: the ids. loss: summed over them, in nats. took_s: of that forward.
    embedding, head: its own two modules, without their weights.
    """

    documents: SampledDocuments
    loss: float
    took_s: float
    embedding: nn.Module
    head: nn.Module

    @classmethod
    def of(
        cls, causal_lm: Any, documents: SampledDocuments, pieces: Sequence[Sequence[int]], base_vocab: int
    ) -> BaseForward:
        """Reads it off a loaded base before `adapt` replaces anything of it.

        Args:
            documents: ids of the run's tokenizer.
            pieces: for each added token the base ids that spelled it.
        """
        spelled = in_base_ids(documents, pieces, base_vocab)
        started_s = time.monotonic()
        with torch.no_grad(), _plain_attention(causal_lm):
            loss = float(_plain_loss(causal_lm, spelled, base_vocab))
        took_s = time.monotonic() - started_s
        modules = (causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings())
        return cls(spelled, loss, took_s, *map(_without_weight, modules))

    @property
    def token_s(self) -> float:
        """Seconds per token of that forward."""
        return self.took_s / sum(map(len, self.documents))


def check_forward(model: AdaptedModel, base: BaseForward, documents: SampledDocuments, quantize: str) -> None:
    """Both comparisons; every trained value is put back bit for bit, and nothing is kept.

    Args:
        model: as `adapt` made it.
        documents: ids of the run's tokenizer.
        quantize: as `train.quantize` has it.

    Raises:
        SelfTestError: a loss or a gradient is not the base's own.
    """
    loss_tolerance, gradient_tolerance = _tolerances(model.output_table.base_VD.dtype, quantize)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        loss = float(_packed_loss(model, base.documents, base_vocab_only=True))
    errors = {"the loss over base ids": (_relative(loss, base.loss), loss_tolerance)}
    with _perturbed_adapters(model), round_to_nearest(model), torch.compiler.set_stance("force_eager"):
        ours, plain, padded = _three_ways(model, base, documents, gradient_tolerance)
    errors["the loss over all ids"] = (_relative(ours.loss, plain.loss), loss_tolerance)
    for name, expected in plain.gradients.items():
        rounding = 0.0 if padded is None else _distance(padded.gradients[name], expected)
        allowed = max(gradient_tolerance, rounding)
        errors[f"the gradient of {name}"] = (_distance(ours.gradients[name], expected), allowed)
    model.train(was_training)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for what, (error, tolerance) in errors.items():
        if not error <= tolerance:
            raise SelfTestError(
                f"{what} differs from the base's own forward by {error:.1e} (relative, {tolerance:.0e} is "
                f"allowed): {type(model.causal_lm).__name__} is not computed here as by transformers; use "
                "another base, or report the base and the version of transformers"
            )
    worst = max(error for what, (error, _) in errors.items() if "loss" in what)
    logger.info(f"self-test: loss and gradients are those of the base's own forward (error {worst:.1e})")


def _tolerances(dtype: torch.dtype, quantize: str) -> tuple[float, float]:
    if quantize == "int8" and dtype != torch.float32:
        return ROUNDED_TO_INT8
    return EXACT if dtype == torch.float32 and quantize == "none" else ROUNDED


@dataclass(frozen=True, slots=True)
class _Pass:
    """A loss in nats, and gradients on the host: all adapters as one vector, and each table's."""

    loss: float
    gradients: dict[str, Tensor]


def _three_ways(
    model: AdaptedModel, base: BaseForward, documents: SampledDocuments, tolerance: float
) -> tuple[_Pass, _Pass, _Pass | None]:
    """Over small tables of the tokens used: ours, split and packed; the base's own modules and forward; and
    where these two are further apart than `tolerance` in 16 bits, the base's own once more with its documents
    padded. Causal attention makes that the same sum, in other shapes: how far it is away is what rounding
    alone does to this text. Short messages spelled in byte tokens over SmolLM2 in bf16 are such a case.
    """
    causal_lm: Any = model.causal_lm
    used_U, flat = np.unique(np.concatenate(documents), return_inverse=True)
    renumbered = np.split(flat, np.cumsum([len(ids) for ids in documents])[:-1])
    embedding, head = causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()
    tied = embedding.table is head.table
    small_in = _small_table(embedding.table, used_U)
    small_out = small_in if tied else _small_table(head.table, used_U)
    bias = None if head.bias is None else head.bias[torch.from_numpy(used_U).to(head.bias.device)]
    try:
        causal_lm.set_input_embeddings(SplitEmbedding(small_in, embedding.scale))
        causal_lm.set_output_embeddings(SplitHead(small_out, bias))
        ours = _gradients(model, _packed_loss(model, renumbered), {"input": small_in, "output": small_out})
        plain_in = _filled(base.embedding, small_in, None)
        plain_out = _filled(base.head, small_out, bias)
        if tied:
            plain_out.weight = plain_in.weight
        causal_lm.set_input_embeddings(plain_in)
        causal_lm.set_output_embeddings(plain_out)
        tables = {"input": plain_in, "output": plain_out}
        with _plain_attention(causal_lm):
            plain = _gradients(model, _plain_loss(causal_lm, renumbered, len(used_U)), tables)
            padded = None
            if causal_lm.dtype != torch.float32 and _furthest(ours, plain) > tolerance:
                for module in tables.values():
                    module.weight.grad = None
                loss = _plain_loss(causal_lm, renumbered, len(used_U), padding=PADDING)
                padded = _gradients(model, loss, tables)
    finally:
        causal_lm.set_input_embeddings(embedding)
        causal_lm.set_output_embeddings(head)
    new = slice(0 if small_in.base_VD.requires_grad else small_in.base_vocab, None)
    for one in filter(None, (ours, plain, padded)):
        for name in tables:
            one.gradients[f"the {name} embeddings"] = one.gradients.pop(name)[new]
    return ours, plain, padded


def _furthest(ours: _Pass, plain: _Pass) -> float:
    return max(_distance(ours.gradients[name], expected) for name, expected in plain.gradients.items())


def _small_table(table: SplitTable, used_U: NDArray[np.int64]) -> SplitTable:
    """The embeddings of these ids alone, in their order."""
    ids_U = torch.from_numpy(used_U).to(table.base_VD.device)
    base_U, new_U = ids_U[ids_U < table.base_vocab], ids_U[ids_U >= table.base_vocab] - table.base_vocab
    new = None if table.new_AD is None else table.new_AD.detach()[new_U]
    return SplitTable(table.base_VD.detach()[base_U], new, train_base=table.base_VD.requires_grad)


def _gradients(model: AdaptedModel, loss: Tensor, tables: dict[str, Any]) -> _Pass:
    """Of a loss, taken off the model again. tables: split ones, or modules with one weight."""
    loss.backward()  # type: ignore[no-untyped-call]
    adapters = [value for name, value in model.named_parameters() if "lora_" in name]
    found = {"the adapters": torch.cat([_taken(value).flatten() for value in adapters])}
    for name, table in tables.items():
        parts = [table.base_VD, table.new_AD] if isinstance(table, SplitTable) else [table.weight]
        found[name] = torch.cat([_gradient(value) for value in parts if value is not None])
    return _Pass(float(loss.detach()), found)


def _gradient(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad.float()


def _taken(value: Tensor) -> Tensor:
    gradient = _gradient(value)
    value.grad = None
    return gradient


def _packed_loss(model: AdaptedModel, documents: SampledDocuments, **options: bool) -> Tensor:
    """All documents as one packed sequence."""
    labels = [np.append(ids[1:], IGNORED) for ids in documents]
    arrays = {
        "input_ids": np.concatenate(documents),
        "position_ids": np.concatenate([np.arange(len(ids)) for ids in documents]),
        "labels": np.concatenate(labels),
    }
    inputs = model_inputs(
        {name: array[None] for name, array in arrays.items()}, model.output_table.base_VD.device
    )
    loss: Tensor = model(**inputs, **options)
    return loss


def _plain_loss(causal_lm: Any, documents: SampledDocuments, vocab: int, *, padding: int = 0) -> Tensor:
    """Summed in nats, a document at a time; what the table has beyond `vocab` is padding.

    padding: ids behind each document; what they give is not looked at.
    """
    device = causal_lm.get_output_embeddings().weight.device
    total = torch.zeros((), device=device)
    for ids in documents:
        ids_1L = torch.from_numpy(np.ascontiguousarray(ids)).to(device).unsqueeze(0)
        padded_1L = functional.pad(ids_1L, (0, padding))
        logits = causal_lm(input_ids=padded_1L, use_cache=False).logits[0, : len(ids) - 1, :vocab]
        total = total + functional.cross_entropy(logits.float(), ids_1L[0, 1:], reduction="sum")
    return total


def _without_weight(module: nn.Module) -> nn.Module:
    """The same module, everything but its weight and bias shared: none of the table is held."""
    twin = copy.copy(module)
    twin._parameters = dict.fromkeys(module._parameters)
    return twin


def _filled(module: nn.Module, table: SplitTable, bias: Tensor | None) -> Any:
    """The base's own module with the folded table for its weight."""
    twin: Any = _without_weight(module)
    twin.weight = nn.Parameter(table.folded())
    if bias is not None:
        twin.bias = nn.Parameter(bias, requires_grad=False)
    if isinstance(twin, nn.Embedding):
        twin.padding_idx = None  # an id of the whole table
    return twin


@contextmanager
def _plain_attention(causal_lm: Any) -> Iterator[None]:
    """transformers' own, without dropout. SDPA where it can: in bf16 its eager attention rounds the softmax,
    and the gradient of 30 sound layers is 4% away."""
    attention, training = causal_lm.config._attn_implementation, causal_lm.training
    softcap = getattr(causal_lm.config, "attn_logit_softcapping", None)
    causal_lm.set_attn_implementation("sdpa" if softcap is None else "eager")
    causal_lm.eval()
    try:
        yield
    finally:
        causal_lm.train(training)
        causal_lm.set_attn_implementation(attention)


@contextmanager
def _perturbed_adapters(model: AdaptedModel) -> Iterator[None]:
    """With LoRA's zero B factors a wrong adapter would go unseen. The same noise on every rank."""
    generator = torch.Generator().manual_seed(20240112)
    adapters = {name: value for name, value in model.trained().items() if "lora_" in name}
    saved = {name: value.detach().clone() for name, value in adapters.items()}
    with torch.no_grad():
        for value in adapters.values():
            value.add_((torch.randn(value.shape, generator=generator) * PERTURBATION).to(value))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in adapters.items():
                value.copy_(saved[name])


def _relative(got: float, expected: float) -> float:
    return abs(got - expected) / max(abs(expected), 1e-30)


def _distance(got: Tensor, expected: Tensor) -> float:
    """The relative L2 distance."""
    return float((got - expected).norm() / expected.norm().clamp(min=1e-30))
