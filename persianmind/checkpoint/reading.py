"""Opening a file of a checkpoint: exactly the bytes that its manifest lists, or an error."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import xxhash

from persianmind.checkpoint.group import describe
from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.common.errors import CheckpointError

Parsed = TypeVar("Parsed")


@contextlib.contextmanager
def open_verified(checkpoint: StoredCheckpoint, name: str) -> Iterator[BinaryIO]:
    """One listed file, hashed and then given from its start.

    Raises:
        CheckpointError: not listed, damaged, or reached through a link.
    """
    path = checkpoint.file(name)
    try:
        # Hash and load through one descriptor: a file swapped in between has no effect.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as handle:
            _check_bytes(checkpoint, name, handle)
            handle.seek(0)
            yield handle
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {describe(error)}") from None


def load_tensors(checkpoint: StoredCheckpoint, name: str) -> dict[str, Any]:
    """The tensors of a listed .safetensors file, on the CPU.

    Raises:
        CheckpointError: as `open_verified`, or it is no safetensors file.
    """
    import safetensors.torch

    with open_verified(checkpoint, name) as handle:
        return parse(checkpoint, name, lambda: safetensors.torch.load(handle.read()))


def load_json(checkpoint: StoredCheckpoint, name: str) -> Any:
    """The content of a listed .json file.

    Raises:
        CheckpointError: as `open_verified`, or it is no JSON.
    """
    with open_verified(checkpoint, name) as handle:
        return parse(checkpoint, name, lambda: json.load(handle))


def parse(checkpoint: StoredCheckpoint, name: str, parser: Callable[[], Parsed]) -> Parsed:
    """What a parser that runs no code makes of a file; whatever it cannot read is an error of ours.

    Raises:
        CheckpointError: the parser failed.
    """
    try:
        return parser()
    except Exception as error:
        raise CheckpointError(f"{checkpoint.path / name} was not loaded: {describe(error)}") from None


def _check_bytes(checkpoint: StoredCheckpoint, name: str, handle: BinaryIO) -> None:
    digest = xxhash.xxh3_128()
    while block := handle.read(1 << 20):
        digest.update(block)
    if digest.hexdigest() != checkpoint.files[name].digest:
        raise CheckpointError(
            f"{checkpoint.path / name}: its bytes changed since they were verified; not loaded"
        )
