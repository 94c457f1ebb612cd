"""Packed attention without a mask equals the dense mask of transformers, whatever the family and kernel."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.common.errors import BaseModelError
from persianmind.model import attention, document_attention, softcap
from persianmind.model.adapted import AdaptedModel, adapt
from persianmind.model.documents import documents_of, model_inputs
from tests.model.helpers import BASE_VOCAB, PIECES, make_recipe

CPU = torch.device("cpu")
# Documents of two sequences of 48: one of a single token, and a padding.
POSITIONS = np.concatenate([np.arange(n) for n in (20, 1, 17, 10, 5, 43)]).reshape(2, 48)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 6},
    "qwen3": {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1, "head_dim": 16},
    "gemma2": {"sliding_window": 6, "attn_logit_softcapping": 2.0, "head_dim": 16},
    "deepseek_v3": {
        "num_key_value_heads": 4, "q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 2,
    },
}  # fmt: skip


def make_model(family: str, *, seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": BASE_VOCAB, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        **FAMILIES[family],
    }  # fmt: skip
    config = AutoConfig.for_model(family, **settings)
    model: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.eval()


def run(model: nn.Module, implementation: str, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden states and gradients under an implementation."""
    model.to(dtype).set_attn_implementation(implementation)  # type: ignore[operator]
    model.zero_grad()
    positions = torch.from_numpy(POSITIONS)
    ids = torch.randint(0, BASE_VOCAB, positions.shape, generator=torch.Generator().manual_seed(1))
    extra = {}
    if implementation.startswith("persianmind"):
        extra["documents"] = documents_of(POSITIONS, CPU)
    hidden = model.get_decoder()(  # type: ignore[operator]
        input_ids=ids, position_ids=positions, use_cache=False, **extra
    ).last_hidden_state
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    (hidden.float() * weights).sum().backward()
    return hidden.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def largest_difference(model: nn.Module, implementation: str, dtype: torch.dtype) -> float:
    """To the dense mask, of hidden states and gradients alike, relative to the largest value."""
    attention.register_packed_attention()
    hidden, gradients = run(model, implementation, dtype)
    dense, dense_gradients = run(model, "eager", dtype)
    assert gradients.keys() == dense_gradients.keys() and len(gradients) > 10
    pairs = [(hidden, dense)] + [(gradients[name], dense_gradients[name]) for name in gradients]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in pairs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_the_dense_mask(family: str, dtype: torch.dtype, tolerance: float) -> None:
    assert largest_difference(make_model(family), attention.IMPLEMENTATIONS["auto"], dtype) < tolerance


def test_the_comparison_would_see_a_lost_window_and_a_lost_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: each of what the kernels are given matters to the result."""
    monkeypatch.setattr(
        document_attention,
        "softcap_forward",
        lambda *parts, window, **settings: softcap.softcap_forward(*parts, **settings),
    )
    auto = attention.IMPLEMENTATIONS["auto"]
    assert largest_difference(make_model("gemma2"), auto, torch.float32) > 1e-3
    blocks = document_attention._blocks
    monkeypatch.setattr(document_attention, "_blocks", lambda query, window: blocks(query, None))
    assert largest_difference(make_model("mistral"), auto, torch.float32) > 1e-3


def varlen_reference(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, window: tuple[int, int], scale: float
) -> Tensor:
    """What the varlen kernels compute, by their documentation, with a mask over all tokens."""
    tokens = torch.arange(len(query))
    document = torch.bucketize(tokens, offsets[1:].long(), right=True)
    seen = (document[:, None] == document) & (tokens[:, None] >= tokens)
    if window[0] >= 0:
        seen &= tokens[:, None] - tokens <= window[0]
    heads = [tensor.transpose(0, 1) for tensor in (query, key, value)]
    out = nn.functional.scaled_dot_product_attention(*heads, attn_mask=seen, scale=scale, enable_gqa=True)
    return out.transpose(0, 1)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("family", ["llama", "mistral", "deepseek_v3"])
def test_the_varlen_kernel_of_an_imitated_gpu_is_called_rightly(
    family: str, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grouped: the kernel takes fewer key than query heads; that of an older torch does not."""
    import torch.nn.attention.varlen as varlen

    calls: list[int] = []

    def older(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size):  # type: ignore
        calls.append(len(cu_q))
        assert cu_q is cu_k and cu_q.dtype == torch.int32 and max_q == max_k == 48
        assert len(q) == cu_q[-1] == 96 and (grouped or q.shape[1] == k.shape[1])
        return varlen_reference(q, k, v, cu_q, window_size, scale)

    def newer(q, k, *given, enable_gqa=False, **named):  # type: ignore
        assert enable_gqa == (q.shape[1] != k.shape[1])
        return older(q, k, *given, **named)

    monkeypatch.setattr(varlen, "varlen_attn", newer if grouped else older)
    monkeypatch.setattr(attention, "varlen_runs_on", lambda _: True)
    model = make_model(family)
    assert largest_difference(model, attention.IMPLEMENTATIONS["auto"], torch.bfloat16) < 6e-2
    assert calls == [2 * 128 + 1] * 2


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_flash_attn_of_an_imitated_gpu_gets_every_document_also_at_two_sequences(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def recorder(q, k, v, *, cu_seqlens_q, window_size, softmax_scale, causal, **rest):  # type: ignore
        calls.append(rest)
        assert causal and cu_seqlens_q is rest["cu_seqlens_k"] and rest["deterministic"] is False
        return varlen_reference(q, k, v, cu_seqlens_q, window_size, softmax_scale)

    package = ModuleType("flash_attn")
    package.flash_attn_varlen_func = recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    model = make_model(family)
    flash = attention.IMPLEMENTATIONS["flash_attention_2"]
    assert largest_difference(model, flash, torch.float32) < 2e-5
    assert len(calls) == 2


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements an operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return result


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_of_length_by_length_is_made(family: str) -> None:
    length = 768  # 4 heads of a block of 128 queries under the soft-cap are less than half of L x L
    positions = np.concatenate([np.arange(n) for n in (150, 250, 368)])[None]
    config = make_model(family).config
    config.max_position_embeddings = length
    if getattr(config, "sliding_window", None):
        config.sliding_window = 96  # each window is a call
    model = adapt(AutoModelForCausalLM.from_config(config), make_recipe(), PIECES, BASE_VOCAB).train()
    batch = {"input_ids": positions % 90, "position_ids": positions, "labels": positions % 90}
    with LargestTensor() as seen:
        model(**model_inputs(batch, CPU)).backward()
    assert seen.elements < length * length / 2
    model.causal_lm.set_attn_implementation("eager")  # the control: a mask, and scores, of L x L
    with LargestTensor() as seen:
        model.causal_lm.get_decoder()(input_ids=torch.from_numpy(batch["input_ids"]), use_cache=False)
    assert seen.elements >= length * length


def test_offsets_have_one_shape_whatever_the_documents() -> None:
    many = np.zeros((1, 200), dtype=np.int64)  # 200 documents of one token
    few = documents_of(POSITIONS[:1], CPU)
    assert few.offsets.tolist()[:5] == [0, 20, 21, 38, 48] and few.offsets.shape == (129,)
    assert few.lengths == (20, 1, 17, 10) and set(few.offsets.tolist()[4:]) == {48}
    assert documents_of(many, CPU).offsets.shape == (257,) and len(documents_of(many, CPU).lengths) == 200


def test_a_decoder_that_keeps_the_documents_from_its_layers_is_refused() -> None:
    model = adapt(make_model("llama"), make_recipe(), PIECES, BASE_VOCAB)
    ids = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(BaseModelError, match="does not hand the packed documents on"):
        model.causal_lm(input_ids=ids, use_cache=False)  # plain transformers knows of no documents
    with pytest.raises(BaseModelError, match="mask of its own"):
        model.causal_lm.model(
            input_ids=ids, attention_mask=torch.zeros(1, 1, 4, 4), documents=documents_of(ids.numpy(), CPU)
        )


def test_adapted_model_reads_documents_and_targets_off_the_tensors_where_none_are_given() -> None:
    model: AdaptedModel = adapt(make_model("llama"), make_recipe(), PIECES, BASE_VOCAB)
    batch = {"input_ids": POSITIONS % 90, "position_ids": POSITIONS, "labels": POSITIONS % 90}
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    assert torch.equal(model(**tensors), model(**model_inputs(batch, CPU)))
