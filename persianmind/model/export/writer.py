"""safetensors files written a weight at a time (https://github.com/huggingface/safetensors, "Format"):
8 bytes of header length, a JSON header with the place of every tensor, then the tensors without gaps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.atomic import write_text
from persianmind.model.export.source import TensorSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_SHARD_BYTES = 5_000_000_000
_DTYPE_NAMES = {"torch.bfloat16": "BF16", "torch.float16": "F16", "torch.float32": "F32"}
_ALIGNMENT = 8
Shapes = Mapping[str, tuple[int, ...]]


def write_weights(
    folder: Path, tensors: TensorSource, dtype: torch.dtype, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Writes model.safetensors, or where it would be larger than `max_shard_bytes` several files and their
    index, as Hugging Face names them.

    Raises:
        OSError: the disk is full or failing.
    """
    shapes = tensors.shapes()
    shards = split_shards(shapes, dtype.itemsize, max_shard_bytes)
    if len(shards) == 1:
        write_safetensors(folder / "model.safetensors", shapes, dtype, tensors.load)
        return
    file_of: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / file, {name: shapes[name] for name in names}, dtype, tensors.load)
        file_of |= dict.fromkeys(names, file)
    total = sum(map(math.prod, shapes.values())) * dtype.itemsize
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(file_of.items()))}
    text = json.dumps(index, indent=2) + "\n"
    write_text(folder / "model.safetensors.index.json", text)


def split_shards(shapes: Shapes, itemsize: int, max_shard_bytes: int) -> Sequence[Sequence[str]]:
    """The names in their order, cut where a file would grow beyond `max_shard_bytes`."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, shape in shapes.items():
        size_bytes = math.prod(shape) * itemsize
        if shards[-1] and used + size_bytes > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size_bytes
    return shards


def write_safetensors(path: Path, shapes: Shapes, dtype: torch.dtype, load: Callable[[str], Tensor]) -> None:
    """One file; `load` is asked for one tensor after the other, all of the same dtype.

    Raises:
        ValueError: a tensor is not as it was announced.
        OSError: the disk is full or failing.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _DTYPE_NAMES[str(dtype)],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    raw = json.dumps(header).encode("utf-8")
    raw += b" " * (-len(raw) % _ALIGNMENT)
    with path.open("wb") as handle:
        handle.write(len(raw).to_bytes(8, "little"))
        handle.write(raw)
        for name, shape in shapes.items():
            tensor = load(name)
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {dtype} {shape}")
            handle.write(_bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> memoryview:
    """Its bytes, without a copy where it is contiguous (little-endian hosts, as torch's all are)."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
