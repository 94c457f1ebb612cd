"""torch.compile of the decoder layers: whether a run does it, what that needs, when a compiled layer is used.

Imports no torch by itself: the checks before a run ask it what is missing.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Measured, see docs/training.md: on GPUs a step is a fifth shorter.
PAYS_ON = frozenset(("cuda",))


def missing_for_compile(kind: str) -> str | None:
    """What torch.compile lacks for a device of this kind, `cuda` or `cpu`, in words; None: nothing."""
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton"
    compiler = os.environ.get("CC") or "gcc" if kind == "cuda" else os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None:
        return f"a compiler ({compiler})"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python.h (the package python3-dev)"
    return None


def decide_compile(setting: bool | str, kind: str) -> tuple[bool, str]:
    """Whether to compile under `train.compile`, and what the log says of it.

    Args:
        setting: true and false as they are; `auto` where it pays and nothing is missing.
        kind: of the device, `cuda` or `cpu`.
    """
    if setting != "auto":
        return bool(setting), "compile: each layer; the first step is slow" if setting else "compile: off"
    if kind not in PAYS_ON:
        return False, "compile: off, where it does not pay (train.compile: auto)"
    missing = missing_for_compile(kind)
    if missing is not None:
        return False, f"compile: off, {missing} is missing (train.compile: auto)"
    return True, "compile: each layer (train.compile: auto); the first step is slow"


def compile_layers(causal_lm: Any, backend: str = "inductor") -> None:
    """torch.compile of every decoder layer in place: equal layers share one compilation, names stay.

    A layer runs compiled where gradients are made, in training. Elsewhere (evaluation, generation) it runs as
    it is: batches of other shapes would each be compiled anew.

    Args:
        causal_lm: with its recomputation set.
        backend: of torch.compile; `aot_eager` makes the graphs, and runs them operation by operation.
    """
    from persianmind.model.attention import keep_loops_uncompiled

    # Says that in-place operations must not be recomputed: those of ours are within operations of their own.
    logging.getLogger("torch._higher_order_ops.wrap").addFilter(_is_news)
    keep_loops_uncompiled()
    for layer in causal_lm.get_decoder().layers:
        layer.compile(backend=backend)
        layer._compiled_call_impl = _in_training(layer._compiled_call_impl, layer._call_impl)


def forget_shapes(causal_lm: Any) -> None:
    """Compiled layers are compiled anew at their next call, as in a process that begins there.

    For a second length of sequences torch writes other code than for a first, and a run that goes on in that
    stage would round otherwise. Does nothing where none is compiled.
    """
    import torch

    if any(layer._compiled_call_impl is not None for layer in causal_lm.get_decoder().layers):
        torch.compiler.reset()


def _in_training(compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    def call(*arguments: Any, **options: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else plain)(*arguments, **options)

    return call


def _is_news(record: logging.LogRecord) -> bool:
    return "context_fn is passed to torch.utils.checkpoint" not in record.getMessage()
