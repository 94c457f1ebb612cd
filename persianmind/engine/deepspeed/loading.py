"""Loading a file of a checkpoint: the only place of the project where a DeepSpeed .pt file is opened.

Three walls stand before a pickle runs: a manifest of ours lists the file, the opened bytes hash to what the
manifest says, and torch's weights-only unpickler builds nothing but tensors, plain containers and the three
classes that ZeRO-2 files of DeepSpeed contain.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.checkpoint.reading import open_verified
from persianmind.common.errors import CheckpointError


def allowed_classes() -> list[Any]:
    """The classes beyond torch's own list that a ZeRO-2 optimizer file of DeepSpeed 0.19 contains."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


def load_verified(checkpoint: StoredCheckpoint, name: str, map_location: Any = "cpu") -> Any:
    """Loads one listed .pt file from exactly the bytes that were hashed.

    Raises:
        CheckpointError: not listed, damaged, reached through a link, of another kind, or a pickle that needs
            more than tensors and the allowed classes.
    """
    path = checkpoint.path / name
    if path.suffix != ".pt":
        raise CheckpointError(f"{path}: DeepSpeed loads .pt files only")
    import torch

    with open_verified(checkpoint, name) as handle:
        try:
            with torch.serialization.safe_globals(allowed_classes()):
                return torch.load(handle, map_location=map_location, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise CheckpointError(f"{path} was not loaded: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """torch's own reason without its advice, which is to load the file in a way that runs code."""
    lines = [line.strip() for line in str(error).split("WeightsUnpickler error:")[-1].splitlines()]
    unsupported = [line for line in lines if "nsupported" in line]
    return next((line for line in [*unsupported, *lines] if line), type(error).__name__)


class VerifiedReader:
    """DeepSpeed's checkpoint engine interface, reading only what `checkpoint` lists (`load_verified`)."""

    def __init__(self, checkpoint: StoredCheckpoint, behind: Any) -> None:
        self._checkpoint = checkpoint
        self._behind = behind

    def load(self, path: str, map_location: Any = None) -> Any:
        root = Path(os.path.abspath(self._checkpoint.path))  # noqa: PTH100 (resolve() would follow links)
        wanted = Path(os.path.abspath(path))  # noqa: PTH100
        if not wanted.is_relative_to(root):
            raise CheckpointError(f"DeepSpeed asked for {path}, which is outside the checkpoint {root}")
        return load_verified(self._checkpoint, wanted.relative_to(root).as_posix(), map_location or "cpu")

    def save(self, state_dict: Any, path: str) -> None:
        raise CheckpointError(f"nothing is saved while a checkpoint is loaded ({path})")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


@contextlib.contextmanager
def reading_only(engine: Any, checkpoint: StoredCheckpoint) -> Iterator[None]:
    """In the block `engine.load_checkpoint` can open nothing but the verified files of `checkpoint`."""
    behind = engine.checkpoint_engine
    engine.checkpoint_engine = VerifiedReader(checkpoint, behind)
    try:
        yield
    finally:
        engine.checkpoint_engine = behind
