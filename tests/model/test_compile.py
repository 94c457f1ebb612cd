"""torch.compile of the decoder layers: the same loss and gradients, under the same names, also recomputed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from persianmind.model.adapted import attention_implementation, build_adapted, compile_layers
from persianmind.model.attention import IMPLEMENTATIONS
from tests.model.helpers import BASE_VOCAB, PIECES, make_base, make_recipe, packed_batch

VOCAB = BASE_VOCAB + len(PIECES)


@pytest.mark.long
def test_compiled_layers_give_the_same_gradients(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    recipe = make_recipe(train={"precision": "fp32", "gradient_checkpointing": "full"})
    batch = packed_batch(vocab=VOCAB)
    seen = []
    for compiled in (False, True):
        model = build_adapted(base, recipe, PIECES, BASE_VOCAB)
        generator = torch.Generator().manual_seed(5)
        for name, value in model.trained().items():
            if "lora_B" in name:
                value.data.copy_(torch.randn(value.shape, generator=generator) * 0.05)
        if compiled:
            compile_layers(model)
        model.train()
        loss = model(**batch)
        loss.backward()
        seen.append((float(loss.detach()), {name: value.grad for name, value in model.trained().items()}))
    (eager_loss, eager), (compiled_loss, compiled) = seen
    assert compiled_loss == pytest.approx(eager_loss, rel=1e-5)
    assert list(eager) == list(compiled)
    for name, gradient in eager.items():
        assert gradient is not None
        largest = float(gradient.abs().max())
        assert torch.allclose(gradient, compiled[name], atol=1e-4 * largest), name
    layer = model.causal_lm.get_decoder().layers[0]  # type: ignore[operator]
    assert layer._compiled_call_impl is not None  # or the comparison was of two eager models


def test_flash_attention_is_used_only_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention_implementation("sdpa") == IMPLEMENTATIONS["sdpa"]
    assert (
        attention_implementation("flash_attention_2") == IMPLEMENTATIONS["auto"]
    )  # no GPU here, or no package
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert attention_implementation("flash_attention_2") == IMPLEMENTATIONS["flash_attention_2"]
