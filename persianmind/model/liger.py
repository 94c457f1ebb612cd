"""Liger's kernels for norms, rotations and SwiGLU on a GPU: what torch.compile would join, without compiling.

The package liger-kernel is optional. Its public function for a family patches a model that exists; the loss
is left alone, which has an implementation of its own here. Not measured by this project.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from typing import Any

from persianmind.common.errors import MachineError

# What is asked of it; all else that its functions can put in stays off.
_WANTED = ("rope", "rms_norm", "swiglu", "geglu")


def liger_missing(kind: str) -> str | None:
    """Why Liger cannot be used on a device of this kind, `cuda` or `cpu`, in words; None: it can."""
    if kind != "cuda":
        return "its kernels are for GPUs"
    if importlib.util.find_spec("liger_kernel") is None:
        return "the package liger-kernel is missing (pip install 'persianmind[liger]')"
    return None


def check_liger(kernels: str, kind: str) -> str:
    """What `train.kernels` comes to, in words.

    Raises:
        MachineError: Liger is asked for and cannot be used.
    """
    missing = liger_missing(kind)
    if kernels == "liger" and missing is not None:
        raise MachineError(f"train.kernels is liger, but {missing}; give train.kernels=torch to go without")
    return f"{kernels}'s"


def apply_liger(causal_lm: Any, kind: str) -> None:
    """Puts Liger's kernels into a model with adapters.

    Raises:
        MachineError: they cannot be used, or Liger does not know the family.
    """
    check_liger("liger", kind)
    family = causal_lm.config.model_type
    patches = importlib.import_module("liger_kernel.transformers")
    patch = getattr(patches, f"apply_liger_kernel_to_{family}", None)
    if patch is None:
        raise MachineError(
            f"train.kernels is liger, but Liger does not know the family {family}; give train.kernels=torch"
        )
    known = set(inspect.signature(patch).parameters) - {"model"}
    patch(model=causal_lm, **{name: name in _WANTED for name in known})
