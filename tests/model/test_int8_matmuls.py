"""Matmuls of int8 matrices and rotated projections, beside torch's int64 and fp32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from persianmind.model import int8_matmuls
from persianmind.model.int8 import Int8Linear
from persianmind.model.int8_loading import Int8Quantize
from persianmind.model.int8_matmuls import EXACT_TERMS, int8_matmul
from persianmind.model.int8_rotation import hadamard, rotate_blocks, rotation_block

KINDS = ["of torch", "in parts"]


def int8(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-127, 128, shape, generator=generator).to(torch.int8)


@pytest.fixture(params=KINDS)
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_matmuls, "has_int8_matmuls", lambda: request.param == "of torch")


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("terms", [8, EXACT_TERMS, EXACT_TERMS + 8, 5504])
def test_matmuls_are_exact_at_the_extremes_and_between(terms: int) -> None:
    for value in (127, -127):
        a, b = torch.full((3, terms), value).to(torch.int8), torch.full((terms, 8), 127).to(torch.int8)
        a[1, 0] -= value // 127  # an odd sum: beyond 2^24 no fp32 number
        assert torch.equal(int8_matmul(a, b), (a.long() @ b.long()).int())
    a, b = int8(17, terms), int8(24, terms, seed=1)
    assert torch.equal(int8_matmul(a, b.t()), (a.long() @ b.t().long()).int())
    assert torch.equal(int8_matmul(b, b.t()), (b.long() @ b.t().long()).int())


def test_control_one_fp32_matmul_is_not_exact() -> None:
    a, b = torch.full((1, 5504), 127).to(torch.int8), torch.full((5504, 8), 127).to(torch.int8)
    a[0, 0] = 126
    assert not torch.equal((a.float() @ b.float()).long(), a.long() @ b.long())


def test_both_ways_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, x = quantised(2048, 32), torch.randn(5, 2048)
    found = []
    for kind in KINDS:
        monkeypatch.setattr(int8_matmuls, "has_int8_matmuls", lambda kind=kind: kind == "of torch")
        found.append(linear(x))
    assert torch.equal(*found)


def quantised(inputs: int, outputs: int, seed: int = 0, bias: bool = False) -> Int8Linear:
    """As a base is loaded."""
    torch.manual_seed(seed)
    plain = nn.Linear(inputs, outputs, bias=bias)
    made = Int8Quantize().convert({"a.weight": plain.weight.detach()})
    return Int8Linear(
        made["a.weight"], made["a.scale"], made["a.rotation"], plain.bias.detach() if bias else None
    )


def weight_of(linear: Int8Linear, inputs: int, outputs: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=False).weight.detach()


@pytest.mark.parametrize("inputs", [8, 48, 576, 2048])
def test_a_projection_is_within_the_bound_that_its_scales_give(inputs: int) -> None:
    """Half a step of each number times what it is multiplied with, and half a step times half a step."""
    linear, x = quantised(inputs, 40, bias=True), torch.randn(7, inputs)
    torch.manual_seed(0)
    plain = nn.Linear(inputs, 40)
    rotation = hadamard(rotation_block(inputs), torch.float32, torch.device("cpu"))
    x_rotated = rotate_blocks(x, rotation)
    x_step = x_rotated.abs().amax(1, keepdim=True) / 127
    w_rotated = linear.weight.float().abs() * linear.scale[:, None]
    bound = x_rotated.abs().sum(1, keepdim=True) * linear.scale / 2 + x_step / 2 * w_rotated.sum(1)
    error = (linear(x) - plain(x)).abs()
    assert (error <= bound + inputs * x_step * linear.scale / 4 + 1e-5).all()
    assert error.max() > 1e-5  # it is quantised


def test_dequantised_weights_are_the_plain_ones_within_half_a_step() -> None:
    linear = quantised(576, 40)
    plain = weight_of(linear, 576, 40)
    rotated = rotate_blocks(plain, linear.rotation) / 64
    assert ((linear.weight * linear.scale[:, None] - rotated).abs() <= linear.scale[:, None] * 0.5001).all()
    relative = (linear.dequantize() - plain).norm() / plain.norm()
    assert 1e-3 < relative < 1e-2


def test_a_rotation_is_its_own_inverse_and_tames_outliers() -> None:
    for features in (8, 24, 48, 64, 576, 11_008):
        block = rotation_block(features)
        assert features % block == 0 and block == min(64, features & -features)
        rotation, x = hadamard(block, torch.float32, torch.device("cpu")), torch.randn(3, features)
        assert torch.allclose(rotate_blocks(rotate_blocks(x, rotation), rotation) / block, x, atol=1e-5)
    x = torch.randn(4, 576)
    x[:, 5] = 100.0
    plain = weight_of(quantised(576, 40), 576, 40)
    from persianmind.model.int8_rounding import quantise_rows

    exact, linear = x @ plain.t(), quantised(576, 40)
    x8, scale = quantise_rows(x)
    unrotated = (x8 * scale) @ plain.t()
    assert (linear(x) - exact).norm() < 0.5 * (unrotated - exact).norm()


def test_a_cast_to_16_bits_leaves_the_scale() -> None:
    linear = quantised(64, 16, bias=True).to(torch.bfloat16)
    assert linear.scale.dtype == torch.float32 and linear.weight.dtype == torch.int8
    assert linear.rotation.dtype == linear.bias.dtype == torch.bfloat16
    assert linear(torch.randn(2, 3, 64, dtype=torch.bfloat16)).shape == (2, 3, 16)


def test_what_is_not_finite_stays_so() -> None:
    linear = quantised(64, 16)
    for value in (float("nan"), float("inf")):
        x = torch.randn(2, 64)
        x[0, 3] = value
        y = linear(x)
        assert not y[0].isfinite().any() and y[1].isfinite().all()


def test_gradients_are_near_those_of_the_plain_projection() -> None:
    linear = quantised(576, 320)
    plain, dy = linear.dequantize(), torch.randn(64, 320)
    for kind, bound in (("float", 1e-5), ("nearest", 0.02), ("stochastic", 0.03)):
        linear.kind = kind  # type: ignore[assignment]
        linear.words_2N = torch.randint(-(2**31), 2**31, (2, 64)).to(torch.int32)
        x = torch.randn(64, 576, requires_grad=True)
        linear(x).backward(dy)
        assert x.grad is not None
        error = float((x.grad - dy @ plain).norm() / (dy @ plain).norm())
        assert error < bound and (kind == "float" or error > 1e-3)


def test_control_a_stochastic_gradient_without_keys_is_refused() -> None:
    x = torch.randn(4, 64, requires_grad=True)
    with pytest.raises(RuntimeError, match="sample_keys"):
        quantised(64, 16)(x).sum().backward()


def test_nothing_breaks_the_graph_of_a_compiler() -> None:
    linear = quantised(64, 16)
    linear.words_2N = torch.randint(-(2**31), 2**31, (2, 4)).to(torch.int32)
    results = []
    for call in (linear, torch.compile(linear, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        x = torch.randn(4, 64, requires_grad=True)
        y = call(x)
        y.square().sum().backward()
        results.append((y.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
