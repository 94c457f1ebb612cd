"""The meta device as an imitated GPU: it has no values, so that the host cannot wait for one; and a mode that
refuses what a real GPU would refuse and meta lets through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
COPIES = {"aten::_to_copy", "aten::copy_", "aten::_foreach_copy_"}


class OneDevice(TorchDispatchMode):
    """Raises at an operation over tensors of two devices, but for copies and for CPU scalars."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name not in COPIES:
            devices = {one.device.type for one in tensors_in((args, kwargs))}
            if len(devices) > 1:
                raise RuntimeError(f"{func} over tensors on {' and '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Every tensor of arguments, but for CPU scalars."""
    if isinstance(tree, Tensor):
        if tree.device.type != "cpu" or tree.dim():
            yield tree
    elif isinstance(tree, dict):
        yield from tensors_in(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for one in tree:
            yield from tensors_in(one)
