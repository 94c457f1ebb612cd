"""Recompute: the same gradients to the bit, no matmul twice where it is selective, and what it keeps."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.model.attention import register_packed_attention
from persianmind.model.documents import documents_of
from persianmind.model.folded_lora import fold_adapters
from persianmind.model.recompute import set_recompute
from persianmind.recipe.train import FullLayers

TOKENS, LAYERS = 64, 2
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SETTINGS: list[str | FullLayers] = ["off", "selective", "full", FullLayers(full_layers=1)]
KINDS = {"llama": {}, "llama-gqa": {"num_key_value_heads": 2}, "qwen2": {}, "gemma3_text": {"head_dim": 16}}
POSITIONS = torch.cat([torch.arange(40), torch.arange(TOKENS - 40)])[None]


def make_decoder(
    kind: str = "llama",
    *,
    recompute: str | FullLayers = "off",
    folded: bool = True,
    dtype: torch.dtype = torch.float32,
    **sizes: Any,
) -> nn.Module:
    """Layers with LoRA, as training has them."""
    register_packed_attention()
    torch.manual_seed(0)
    settings = {
        "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 4, **KINDS[kind], **sizes,
    }  # fmt: skip
    config = AutoConfig.for_model(kind.partition("-")[0], **settings)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="persianmind_packed")
    inject_adapter_in_model(LoraConfig(r=8, target_modules=PROJECTIONS), model)
    for name, value in model.named_parameters():
        value.requires_grad_("lora_" in name)
        if "lora_B" in name:
            value.data.normal_(0, 0.05)
    model.to(dtype)
    if folded:
        fold_adapters(model)
    set_recompute(model, recompute)
    return model.train()  # type: ignore[no-any-return]


def hidden_of(model: Any, positions: Tensor = POSITIONS) -> Tensor:
    """What the decoder makes of inputs that ask for a gradient, as trained embeddings do."""
    weight = next(model.parameters())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*positions.shape, model.config.hidden_size, generator=generator).to(weight.dtype)
    output = model.get_decoder()(
        inputs_embeds=x.requires_grad_(),
        position_ids=positions,
        documents=documents_of(positions.numpy(), torch.device("cpu")),
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


def gradients(model: nn.Module) -> tuple[dict[str, Tensor], int]:
    """(gradients by name, FLOPs of forward and backward)."""
    with FlopCounterMode(display=False) as counter:
        hidden_of(model).float().square().mean().backward()
    return {n: v.grad for n, v in model.named_parameters() if v.grad is not None}, counter.get_total_flops()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("folded", [True, False], ids=["folded", "peft"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same_to_the_bit(kind: str, folded: bool, dtype: torch.dtype) -> None:
    make = partial(make_decoder, kind, folded=folded, dtype=dtype)
    expected, once = gradients(make())
    assert len(expected) == 2 * len(PROJECTIONS) * LAYERS
    flops = []
    for setting in SETTINGS[1:]:
        found, count = gradients(make(recompute=setting))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items()), setting
        flops.append(count)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        hidden_of(make())
    selective, full, mixed = flops
    assert selective == once
    # torch ends the second pass at the last value that is asked for, before a layer's very last LoRA matmul.
    assert full == pytest.approx(once + forward.get_total_flops(), rel=0.005)
    assert mixed == pytest.approx(once + forward.get_total_flops() / 2, rel=0.005)


def test_a_policy_that_keeps_nothing_computes_everything_twice() -> None:
    """Control of the count above: it is not blind to what is recomputed."""
    _, once = gradients(make_decoder())
    _, full = gradients(make_decoder(recompute="full"))
    model: Any = make_decoder(recompute="selective")
    contexts = partial(
        create_selective_checkpoint_contexts, lambda *_, **__: CheckpointPolicy.PREFER_RECOMPUTE
    )
    for layer in model.get_decoder().layers:
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    assert gradients(model)[1] == full > once


def test_a_layer_that_draws_numbers_draws_them_again_the_same() -> None:
    """Dropout, under which peft's own forward runs."""

    def dropped(setting: str) -> dict[str, Tensor]:
        model = make_decoder(recompute=setting)
        for name, module in model.named_modules():
            if name.endswith("lora_dropout") and isinstance(module, nn.ModuleDict):
                module["default"] = nn.Dropout(0.2)
        torch.manual_seed(5)
        return gradients(model.train())[0]

    expected, plain = dropped("off"), gradients(make_decoder())[0]
    assert not all(torch.equal(plain[name], value) for name, value in expected.items())
    for setting in ("selective", "full"):
        found = dropped(setting)
        assert all(torch.equal(found[name], value) for name, value in expected.items()), setting


def held_after_forward(setting: str, layers: int, tokens: int) -> int:
    """Bytes that a forward pass leaves for the backward pass, as the planner's meter counts them."""
    from persianmind.estimate.meter import AllocationMeter

    shape = {"hidden_size": 256, "intermediate_size": 688}  # as in Llama 2: 11,008 of 4,096
    model = make_decoder(recompute=setting, num_hidden_layers=layers, **shape)
    positions = torch.arange(tokens)[None]
    meter = AllocationMeter(model, list(model.parameters()) + list(model.buffers()))
    with meter:
        hidden = hidden_of(model, positions)
        held = meter.current_bytes
    assert hidden.requires_grad
    return held


def test_bytes_kept_per_token_and_layer() -> None:
    tokens, element = 256, 4

    def kept(setting: str) -> float:
        more = held_after_forward(setting, 3, tokens) - held_after_forward(setting, 2, tokens)
        return more / (tokens * 256 * element)

    # 11.4 by count, with LoRA's 8 numbers for each of seven projections and attention's statistics.
    assert 11.4 < kept("selective") <= 13
    assert kept("full") <= 1.1 and kept("off") > 13
