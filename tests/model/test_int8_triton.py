"""The int8 base's Triton kernels without a GPU: to the bit what plain torch gives, in Triton's interpreter;
and compiled for the GPUs that they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from persianmind.model import int8_matmuls
from tests.support.triton_cpu import run_with_triton

ROWS = """
import torch
from persianmind.model.int8_rounding import quantise_rows, row_words
from persianmind.model.int8_triton import quantise_rows_fused
draw = torch.Generator().manual_seed(0)
factors = 0
for dtype in (torch.float32, torch.bfloat16):
    for rows, columns in ((5, 48), (7, 100), (3, 1000)):
        x = torch.randn(rows, columns, generator=draw).to(dtype)
        x[1], x[2, 3] = 0, 50
        words = row_words(torch.arange(1), rows, 2)[1]
        factor = torch.rand(columns, generator=draw)
        for of_words in (None, words):
            for by in (None, factor):
                expected = quantise_rows(x if by is None else x.float() * by, of_words)
                found = quantise_rows_fused(x, of_words, by)
                assert all(map(torch.equal, found, expected)), (dtype, rows, columns)
        apart = torch.randn(rows, 2 * columns, generator=draw).to(dtype)[:, :columns]
        assert all(map(torch.equal, quantise_rows_fused(apart), quantise_rows(apart)))
halves = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
assert quantise_rows_fused(halves)[0].tolist() == [[127, 0, 2, 2, 0, -2]]
broken = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0], [1.0, 2.0]])
assert quantise_rows_fused(broken)[1].isfinite().flatten().tolist() == [False, False, True]
# control: the kernel does round by the words it is given
assert not torch.equal(quantise_rows_fused(x, words)[0], quantise_rows_fused(x, words.flip(0))[0])
print("same")
"""

MATMULS = """
import torch
from persianmind.model.int8_triton import AddedMatmul, scaled_matmul
draw = torch.Generator().manual_seed(0)
def whole(*shape):
    return torch.randint(-127, 128, shape, generator=draw, dtype=torch.int8)
for rows, depth, columns, rank in ((5, 48, 40, 0), (130, 200, 136, 4), (33, 64, 144, 40)):
    x, w, other_w = whole(rows, depth), whole(columns, depth), whole(depth, columns)
    x[0], w[0] = 127, -127
    ones = torch.ones(rows, 1)
    for matrix in (w.t(), other_w):  # as forward reads the weight, and as backward does
        found = scaled_matmul(x, matrix, ones, torch.float32)
        assert torch.equal(found.long(), x.long() @ matrix.long())
    scale, by, bias = (torch.rand(size, generator=draw) for size in (rows, columns, columns))
    h, B = (torch.randn(size, max(rank, 1), generator=draw) for size in (rows, columns))
    added = AddedMatmul(h, B.t()) if rank else None
    more = {"column_scale_C": by, "bias_C": bias, "added": added}
    found = scaled_matmul(x, w.t(), scale[:, None], torch.float32, **more)
    sums = (x.long() @ w.t().long()).float() * scale[:, None] * by
    expected = sums.double() + bias.double() + (h.double() @ B.double().t() if rank else 0)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-6
    assert torch.equal(scaled_matmul(x, w.t(), scale[:, None], torch.float32, column_scale_C=by), sums)
print("same")
"""

LAYER = """
import torch
from persianmind.model import int8_matmuls, int8_lora
from persianmind.model.int8 import input_gradient
from persianmind.model.int8_rounding import row_words
draw = torch.Generator().manual_seed(0)
weight = torch.randint(-127, 128, (40, 48), generator=draw, dtype=torch.int8)
scale, x = torch.rand(40, generator=draw) / 100, torch.randn(33, 48, generator=draw)
A, B = torch.randn(4, 48, generator=draw), torch.randn(40, 4, generator=draw)
words, dy = row_words(torch.arange(1), 33, 1)[0], torch.randn(33, 40, generator=draw)
def everything():
    x8, x_scale = int8_matmuls.quantise(x)
    y, h = int8_lora.int8_lora_projection(x, x8, x_scale, weight, scale, None, A, B, 2.0)
    plain = int8_matmuls.int8_projection(x8, x_scale, weight, scale, None, x.dtype)
    return y, h, plain, input_gradient(dy, weight, scale, words, "stochastic")
expected, calls = everything(), []
for module in (int8_matmuls, int8_lora):  # the CPU, imitating a GPU that has Triton
    module.triton_runs_on = lambda device: not calls.append(device)
found = everything()
assert len(calls) == 5, calls
assert torch.equal(found[1], expected[1]) and torch.equal(found[2], expected[2])
assert torch.equal(found[3], expected[3]) and torch.allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
print("same")
"""

AHEAD = """
import json
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from persianmind.model import int8_triton as ours
def built(kernel, capability, types, constants, **options):
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in places}
    even = {places[n]: [["tt.divisibility", 16]] for n in types.keys() - constants.keys()}
    source = ASTSource(kernel, signature, {places[n]: v for n, v in constants.items()}, even)
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)
def facts(kernel):
    code = kernel.asm["ptx"]
    return {"shared": kernel.metadata.shared, "cubin": len(kernel.asm["cubin"]),
            "int8": "s32.s8.s8" in code, "spilled": ".local" in code, "joined": "fma.rn.f32" in code}
found = {}
for capability in (80, 86, 89, 90):
    of_rows = {"x_ptr": "*bf16", "factor_ptr": "*fp32", "a_ptr": "*i32", "b_ptr": "*i32", "out_ptr": "*i8",
               "scale_ptr": "*fp32"}
    for backward in (False, True):
        missing = {} if backward else {"factor_ptr": None, "a_ptr": None, "b_ptr": None}
        constants = {"HAS_FACTOR": backward, "STOCHASTIC": backward, "BLOCK": 16384, **missing}
        found[f"rows {backward} {capability}"] = facts(built(
            ours.quantise_kernel, capability, of_rows, constants,
            num_warps=ours.quantise_warps(16384), enable_fp_fusion=False))
        of_matmul = {"x_ptr": "*i8", "w_ptr": "*i8", "row_scale_ptr": "*fp32", "column_scale_ptr": "*fp32",
                      "bias_ptr": "*bf16", "h_ptr": "*bf16", "f_ptr": "*bf16", "out_ptr": "*bf16"}
        constants = {"HAS_SCALE": not backward, "HAS_BIAS": False, "bias_ptr": None,
                     "RANKS": 0 if backward else ours.padded_rank(8), "ROWS": ours.ROWS,
                     "COLUMNS": ours.COLUMNS, "DEPTH": ours.DEPTH, "TOGETHER": ours.TOGETHER,
                     "w_column_stride" if backward else "w_depth_stride": 1}
        if backward:
            constants |= {"column_scale_ptr": None, "h_ptr": None, "f_ptr": None}
        found[f"matmul {backward} {capability}"] = facts(built(
            ours.matmul_kernel, capability, of_matmul, constants,
            num_warps=ours.MATMUL_WARPS, num_stages=ours.MATMUL_STAGES))
print(json.dumps(found))
"""


@pytest.mark.more
@pytest.mark.parametrize("script", [ROWS, MATMULS, LAYER], ids=["rows", "matmuls", "layer"])
def test_interpreted_it_gives_what_plain_torch_gives(script: str, tmp_path: Path) -> None:
    assert run_with_triton(script, tmp_path, interpreted=True).endswith("same\n")


@pytest.mark.more
def test_compiled_for_each_capability(tmp_path: Path) -> None:
    """By ptxas: tensor cores on int8, nothing spilled, shared memory of the smallest (99 KB on 8.6 and 8.9),
    and no multiplication joined with a sum where the bits of a rounding depend on both."""
    found = json.loads(run_with_triton(AHEAD, tmp_path, interpreted=False).splitlines()[-1])
    assert len(found) == 4 * 4
    for name, kernel in found.items():
        assert kernel["cubin"] > 1000 and kernel["shared"] <= 99 * 1024 and not kernel["spilled"], name
        assert kernel["int8"] == name.startswith("matmul"), name
        assert not (kernel["joined"] and name.startswith("rows")), name


def test_nothing_but_a_gpu_of_8_0_and_up_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for capability, taken in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        int8_matmuls.triton_runs_on.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert int8_matmuls.triton_runs_on(torch.device("cuda")) is taken
        assert not int8_matmuls.triton_runs_on(torch.device("cpu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    int8_matmuls.triton_runs_on.cache_clear()
    assert not int8_matmuls.triton_runs_on(torch.device("cuda"))
    int8_matmuls.triton_runs_on.cache_clear()
