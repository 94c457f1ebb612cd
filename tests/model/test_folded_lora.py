"""The folded forward of LoRA against peft's own: values, gradients, memory; and when peft's is used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from persianmind.model.folded_lora import _Projections, fold_adapters, unfold_adapters


class Block(nn.Module):
    """Attention's and the MLP's projections, called as transformers calls them."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        for name, size in (("q_proj", 24), ("k_proj", 8), ("v_proj", 8)):
            setattr(self, name, nn.Linear(24, size, bias=bias))
        self.o_proj = nn.Linear(24, 24, bias=bias)
        self.gate_proj, self.up_proj = nn.Linear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
        self.down_proj = nn.Linear(40, 24, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        attended = query * torch.cat([key, value, key * value], dim=-1)
        x = x + self.o_proj(attended)
        return x + self.down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


def make_block(dtype: torch.dtype = torch.float32, *, bias: bool = False, **settings: Any) -> Block:
    torch.manual_seed(0)
    block = Block(bias).to(dtype)
    targets = [name for name, _ in block.named_children()]
    inject_adapter_in_model(
        LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": targets, **settings}), block
    )
    for name, value in block.named_parameters():
        value.requires_grad_("lora_" in name)
        if "lora_B" in name:
            value.data.normal_(0, 0.1)
        value.data = value.data.to(dtype)
    return block


def run(block: Block, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    block.zero_grad()
    y = block(x)
    y.square().sum().backward()
    assert x.grad is not None
    return y.detach(), {"x": x.grad, **{n: v.grad for n, v in block.named_parameters() if v.grad is not None}}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_values_and_gradients_are_those_of_peft(dtype: torch.dtype, tolerance: float, bias: bool) -> None:
    expected_y, expected = run(make_block(dtype, bias=bias), dtype)
    block = make_block(dtype, bias=bias)
    assert fold_adapters(block) == 7
    y, gradients = run(block, dtype)
    assert float((y - expected_y).norm() / expected_y.norm()) < tolerance
    assert gradients.keys() == expected.keys() and len(expected) == 15
    for name, value in expected.items():
        assert float((gradients[name] - value).norm() / value.norm()) < tolerance, name


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = [(draw(3, 4), draw(3)), (draw(5, 4), None)]
    factors = [draw(2, 4), draw(3, 2), draw(2, 4), draw(5, 2)]
    inputs = [value.requires_grad_() for value in (draw(2, 3, 4), *factors)]
    readers = [lambda one=one: one for one in weights]
    assert torch.autograd.gradcheck(lambda x, *f: _Projections.apply(x, readers, (2.0, 0.5), *f), inputs)


def test_no_more_is_saved_than_with_peft() -> None:
    def saved_bytes(folded: bool) -> int:
        block = make_block()
        if folded:
            fold_adapters(block)
        seen: dict[int, int] = {}
        parameters = {value.untyped_storage().data_ptr() for value in block.parameters()}

        def pack(value: torch.Tensor) -> torch.Tensor:
            storage = value.untyped_storage()
            if storage.data_ptr() not in parameters:
                seen[storage.data_ptr()] = storage.nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            y = block(torch.randn(2, 5, 24).requires_grad_())
        del y
        return sum(seen.values())

    assert saved_bytes(True) <= saved_bytes(False)


def test_flops_are_counted_as_pefts() -> None:
    counts = []
    for fold in (False, True):
        block = make_block()
        if fold:
            fold_adapters(block)
        with FlopCounterMode(display=False) as counter:
            run(block)
        counts.append(counter.get_total_flops())
    assert counts[1] == counts[0]


def test_dropout_and_dora_keep_pefts_forward() -> None:
    assert fold_adapters(make_block(use_dora=True)) == 0
    block = make_block(lora_dropout=0.5)
    assert fold_adapters(block) == 7
    torch.manual_seed(3)
    first, _ = run(block)
    second, _ = run(block)
    assert not torch.equal(first, second)  # it still drops
    plain = make_block()
    assert torch.allclose(run(block.eval())[0], run(plain)[0], atol=1e-5)


def test_switched_off_and_scaled_adapters() -> None:
    block, plain = make_block(), make_block()
    fold_adapters(block)
    for one in (block, plain):
        for module in one.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", 0.5)
    assert torch.allclose(run(block)[0], run(plain)[0], atol=1e-5)
    x = torch.randn(3, 24)
    for module in block.modules():
        if hasattr(module, "enable_adapters"):
            module.enable_adapters(False)
    bases = {name: one.get_base_layer() for name, one in block.named_children()}  # type: ignore[operator]
    assert torch.equal(block.q_proj(x), bases["q_proj"](x))


def test_nothing_is_kept_for_a_projection_that_is_not_called() -> None:
    """Another input is another computation; what waits is dropped."""
    block = make_block()
    fold_adapters(block)
    x, other = torch.randn(3, 24), torch.randn(3, 24)
    block.q_proj(x)
    assert torch.allclose(block.k_proj(other), make_block().k_proj(other), atol=1e-6)


def test_unfolded_it_is_peft_again() -> None:
    block, plain = make_block(), make_block()
    fold_adapters(block)
    assert "forward" in vars(block.q_proj)
    unfold_adapters(block)
    assert not any("forward" in vars(module) for module in block.modules())
    (y, gradients), (expected, of_peft) = run(block), run(plain)
    assert torch.equal(y, expected)
    assert all(torch.equal(gradients[name], value) for name, value in of_peft.items())
