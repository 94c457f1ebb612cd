"""torch.compile of the decoder layers: the same loss and gradients, under the same names, also recomputed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from persianmind.model import compiling
from persianmind.model.adapted import AdaptedModel, attention_implementation, build_adapted
from persianmind.model.attention import IMPLEMENTATIONS
from persianmind.model.compiling import compile_layers, decide_compile, forget_shapes
from persianmind.model.documents import model_inputs
from tests.model.helpers import BASE_VOCAB, PIECES, make_base, make_recipe, perturbed

VOCAB = BASE_VOCAB + len(PIECES)
CPU = torch.device("cpu")
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "gemma3_text": {"head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention"] * 2},
    "gemma2": {
        "head_dim": 16, "attn_logit_softcapping": 2.0, "sliding_window": 6,
        "layer_types": ["full_attention"] * 2,
    },
}  # fmt: skip
MIXED = {"full_layers": 1}  # the first layer whole, the second selectively
WAYS = [pytest.param("off", marks=pytest.mark.more, id="off"), pytest.param(MIXED, id="mixed")]
LAYOUTS = ((20, 1, 17, 10, 5, 43), (48, 48), (3,) * 32, (40, 8, 24, 24))


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    torch.compiler.set_stance("default")  # a generator of an earlier test may still hold "force_eager"
    counters.clear()
    yield
    torch.compiler.reset()


def inputs_of(lengths: tuple[int, ...], sequences: int = 2) -> dict[str, Any]:
    positions = np.concatenate([np.arange(n) for n in lengths]).reshape(sequences, -1)
    ids = np.random.default_rng(7).integers(0, VOCAB, positions.shape)
    batch = {"input_ids": ids, "position_ids": positions, "labels": np.roll(ids, -1, axis=1)}
    return model_inputs({**batch, "sample_keys": np.arange(sequences)}, CPU)


def make_model(
    folder: Path, family: str, recompute: Any, quantize: str = "none", **config: Any
) -> AdaptedModel:
    base = make_base(folder / family, family, tied=False, **FAMILIES[family], **config)
    train = {"precision": "fp32", "gradient_checkpointing": recompute, "quantize": quantize}
    return perturbed(build_adapted(base, make_recipe(train=train), PIECES, BASE_VOCAB)).train()


def gradients(model: AdaptedModel, inputs: dict[str, Any]) -> dict[str, Tensor]:
    model.zero_grad()
    loss = model(**inputs)
    loss.backward()
    found = {name: value.grad for name, value in model.trained().items()}
    return {"loss": loss.detach(), **{n: v.clone() for n, v in found.items() if v is not None}}


def furthest(some: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    assert some.keys() == others.keys() and len(some) > 20
    return max(float((some[n] - others[n]).norm() / others[n].norm().clamp_min(1e-9)) for n in some)


@pytest.mark.parametrize("recompute", WAYS)
@pytest.mark.parametrize(
    "family",
    [
        one if one in ("llama", "gemma3_text") else pytest.param(one, marks=pytest.mark.more)
        for one in FAMILIES
    ],
)
def test_layers_compile_whole_and_once_for_all_documents(family: str, recompute: Any, tmp_path: Path) -> None:
    """No graph break, one compilation for each way of recomputing, and gradients of the model as it was."""
    model = make_model(tmp_path, family, recompute)
    batches = [inputs_of(lengths) for lengths in LAYOUTS]
    expected = [gradients(model, batch) for batch in batches]
    compile_layers(model.causal_lm, "aot_eager")
    found = [gradients(model, batch) for batch in batches]
    assert not counters["graph_break"]
    assert counters["frames"] == {"total": 1 + (recompute == MIXED), "ok": 1 + (recompute == MIXED)}
    assert max(map(furthest, found, expected)) < 1e-5
    with torch.no_grad():  # an evaluation of another length is not compiled
        model(**inputs_of((7, 9), sequences=1))
    assert counters["frames"]["total"] == 1 + (recompute == MIXED)


@pytest.mark.parametrize("recompute", WAYS)
def test_int8_layers_compile_whole(recompute: Any, tmp_path: Path) -> None:
    """Where a sum is rounded otherwise, a number may be drawn to the next int8 one."""
    model = make_model(tmp_path, "llama", recompute, "int8")
    batches = [inputs_of(lengths) for lengths in LAYOUTS]
    expected = [gradients(model, batch) for batch in batches]
    compile_layers(model.causal_lm, "aot_eager")
    found = [gradients(model, batch) for batch in batches]
    assert not counters["graph_break"]
    assert counters["frames"]["ok"] == 1 + (recompute == MIXED)
    assert max(map(furthest, found, expected)) < 2e-2


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_a_stage_of_another_length_gets_the_code_that_it_would_begin_with(
    is_forgotten: bool, tmp_path: Path
) -> None:
    """Control: without it the code of a second length is for any length; that of a resumed run is for one."""
    is_open: list[bool] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        sizes = [size for one in inputs for size in (one.shape if isinstance(one, Tensor) else [one])]
        is_open.append(any(isinstance(size, torch.SymInt) for size in sizes))
        return graph.forward

    model = make_model(tmp_path, "llama", "off")
    compile_layers(model.causal_lm, backend)  # type: ignore[arg-type]
    gradients(model, inputs_of(LAYOUTS[0]))
    if is_forgotten:
        forget_shapes(model.causal_lm)
    gradients(model, inputs_of((10, 6, 16)))
    assert is_open == [False, not is_forgotten]


def test_control_a_break_is_counted(tmp_path: Path) -> None:
    """Attention that drops out runs document by document, outside of the graph."""
    model = make_model(tmp_path, "llama", "off", attention_dropout=0.1)
    compile_layers(model.causal_lm, "aot_eager")
    gradients(model, inputs_of(LAYOUTS[0]))
    assert counters["graph_break"]


@pytest.mark.more
def test_selective_recompute_multiplies_nothing_twice_when_compiled(tmp_path: Path) -> None:
    counts = {}
    for name, recompute in (("off", "off"), ("selective", "selective"), ("full", "full")):
        torch.compiler.reset()
        model = make_model(tmp_path / name, "llama", recompute)
        compile_layers(model.causal_lm, "aot_eager")
        inputs = inputs_of(LAYOUTS[0])
        gradients(model, inputs)
        with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
            gradients(model, inputs)
        counts[name] = sum(
            one.flops or 0 for one in profiler.events() if one.name in ("aten::mm", "aten::addmm")
        )
    assert counts["selective"] == counts["off"] > 0
    assert counts["full"] > 1.2 * counts["off"]


@pytest.mark.more
@pytest.mark.parametrize("recompute", ["off", "selective", "full"])
def test_code_that_inductor_writes_gives_the_same_gradients(recompute: str, tmp_path: Path) -> None:
    model = make_model(tmp_path, "llama", recompute)
    batch = inputs_of(LAYOUTS[0])
    expected = gradients(model, batch)
    compile_layers(model.causal_lm)
    assert furthest(gradients(model, batch), expected) < 1e-5
    assert not counters["graph_break"] and counters["frames"]["ok"] == 1


def test_auto_compiles_where_it_pays_and_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "missing_for_compile", lambda kind: None)
    assert decide_compile("auto", "cuda")[0] and not decide_compile("auto", "cpu")[0]
    assert decide_compile(True, "cpu")[0] and not decide_compile(False, "cuda")[0]
    monkeypatch.setattr(compiling, "missing_for_compile", lambda kind: "the package triton")
    wanted, why = decide_compile("auto", "cuda")
    assert not wanted and "the package triton is missing" in why


def test_flash_attention_is_used_only_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention_implementation("sdpa") == IMPLEMENTATIONS["sdpa"]
    assert (
        attention_implementation("flash_attention_2") == IMPLEMENTATIONS["auto"]
    )  # no GPU here, or no package
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert attention_implementation("flash_attention_2") == IMPLEMENTATIONS["flash_attention_2"]
