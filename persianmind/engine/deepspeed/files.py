"""A DeepSpeed engine's own sharded files, written and read without trusting DeepSpeed with the disk.

Saving has two parts. `snapshot_engine` lets DeepSpeed collect what it would save and copies it to host
memory: collective, short, nothing touches the disk. `DeepSpeedSnapshot.write` writes the copies: no
collectives, so an error on one rank cannot leave another one waiting inside DeepSpeed, and it may run beside
training.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import IO, Any, cast

from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.common.errors import CheckpointError
from persianmind.engine.deepspeed.loading import reading_only
from persianmind.engine.deepspeed.reshard import (
    MODEL_STATES,
    TAG,
    differences,
    gather_state,
    parameter_shapes,
    scatter_state,
    shard_names,
)

FileStates = Mapping[str, Any]  # relative path -> what DeepSpeed would save there
_NOWHERE = "/nonexistent"  # a save folder that is only a prefix: nothing is written there


def _copied(value: Any) -> Any:
    """A copy that training cannot change: tensors cloned to host memory, containers rebuilt."""
    import torch

    if torch.is_tensor(value):
        # A view would drag its whole flat buffer into the file; a clone holds just its own elements.
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):  # OrderedDict stays one: torch keeps the order of state dicts in it
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((key, _copied(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    if isinstance(value, tuple) and not isinstance(value, torch.Size):
        return tuple(_copied(inner) for inner in value)
    return value


class _Collector:
    """DeepSpeed's checkpoint engine interface; `save` keeps a copy instead of writing a file."""

    def __init__(self, behind: Any) -> None:
        self._behind = behind
        self.collected: dict[str, Any] = {}

    def create(self, info: Any) -> None:
        return None

    def commit(self, info: Any) -> bool:
        return True

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        return None

    def save(self, state_dict: Any, path: str) -> None:
        self.collected[Path(path).relative_to(_NOWHERE).as_posix()] = _copied(state_dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


@contextlib.contextmanager
def _collecting(engine: Any) -> Iterator[_Collector]:
    behind = engine.checkpoint_engine
    collector = _Collector(behind)
    engine.checkpoint_engine = collector
    # DeepSpeed puts two Python scripts beside its files; no checkpoint of ours carries code.
    engine._copy_recovery_script = lambda save_path: None
    engine.module_state_dict = lambda **_: trained_state(engine.module)
    try:
        yield collector
    finally:
        engine.checkpoint_engine = behind
        del engine._copy_recovery_script, engine.module_state_dict


def trained_state(module: Any) -> dict[str, Any]:
    """The trained parameters of a module by name, and nothing else.

    DeepSpeed's own `exclude_frozen_parameters` drops frozen parameters by their names alone: what a module
    writes beside them stays, such as the quantisation state of a 4-bit weight (absmax, nested_absmax,
    quant_map), 100 MB at 7B.
    """
    return {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}


def snapshot_engine(engine: Any, tag: str = TAG) -> FileStates:
    """What this rank's DeepSpeed files would contain, copied to host memory: relative path -> state.

    Collective: every rank calls it. Nothing frozen is in it (`trained_state`). Training may go on as soon as
    it returns.
    """
    with _collecting(engine) as collector:
        engine.save_checkpoint(_NOWHERE, tag=tag, save_latest=False, exclude_frozen_parameters=True)
    return collector.collected


class _WholeWriter:
    """A raw file that writes all it is given and keeps the first error: torch would raise "unexpected pos
    704 vs 598" in place of "No space left on device"."""

    def __init__(self, handle: RawIOBase) -> None:
        self._handle = handle
        self.error: OSError | None = None

    def write(self, block: bytes | memoryview) -> int:
        rest = memoryview(block).cast("B")
        size_bytes = len(rest)
        try:
            while rest:  # a raw write may take only a part, and 2 GiB at most
                rest = rest[self._handle.write(rest) or 0 :]
        except OSError as error:
            self.error = self.error or error
            raise
        return size_bytes

    def flush(self) -> None:
        return None


class DeepSpeedSnapshot:
    """What `snapshot_engine` collected; `engine.base.Snapshot`."""

    def __init__(self, states: FileStates) -> None:
        self._states = states

    def write(self, folder: Path) -> None:
        """Writes this rank's part below `folder`: the `write` of `CheckpointStore.save`.

        Raises:
            OSError: the disk is full or failing.
        """
        for name, state in self._states.items():
            _write_state(folder / name, state)


def _write_state(path: Path, state: Any) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: torch writes large blocks, and an error is met here, not again while closing.
    with path.open("xb", buffering=0) as handle:
        written = _WholeWriter(cast(RawIOBase, handle))
        try:
            torch.save(state, cast(IO[bytes], written))
        except RuntimeError:
            if written.error is not None:
                raise written.error from None
            raise


def needed_files(checkpoint: StoredCheckpoint, rank: int, world_size: int, tag: str = TAG) -> list[str]:
    """The files that one rank of `world_size` loads by itself; none where the state is resharded.

    Raises:
        CheckpointError: the checkpoint's ZeRO files are not one for each rank that saved.
    """
    names = shard_names(checkpoint, tag)
    return [f"{tag}/{MODEL_STATES}", names[rank]] if checkpoint.world_size == world_size else []


def load_weights(engine: Any, checkpoint: StoredCheckpoint, tag: str = TAG) -> None:
    """Puts the trained weights of a verified checkpoint into an engine, from any number of ranks; optimizer
    moments, rates and step counters stay as they are. Collective.

    Raises:
        CheckpointError: the checkpoint trains other parameters.
    """
    scatter_state(engine.optimizer, gather_state(checkpoint, tag), weights_only=True)


def load_engine(engine: Any, checkpoint: StoredCheckpoint, tag: str = TAG) -> bool:
    """Restores a ZeRO-2 engine from a verified checkpoint, whatever number of ranks saved it.

    With the same layout DeepSpeed loads its files itself; otherwise masters, moments and hyperparameters are
    gathered by name and scattered into this engine. Step counters and the learning-rate schedule come back
    either way. Collective. Returns whether the state was resharded.

    Raises:
        CheckpointError: a file is not what was verified, or the checkpoint trains other parameters.
    """
    zero = engine.optimizer
    saved = parameter_shapes(checkpoint, tag)
    problems = differences(zero, {name: shape for group in saved for name, shape in group.items()})
    if problems:
        raise CheckpointError(f"{checkpoint.path} does not fit this model: {'; '.join(problems[:5])}")
    here = [
        {name: tuple(shape) for name, shape in group.items()} for group in engine._get_zero_param_shapes()
    ]
    # DeepSpeed copies flat slices by position: the order of names must agree, not only their set.
    same_layout = checkpoint.world_size == engine.world_size and [list(group.items()) for group in saved] == [
        list(group.items()) for group in here
    ]
    with reading_only(engine, checkpoint):
        loaded, _ = engine.load_checkpoint(
            str(checkpoint.path), tag=tag, load_module_strict=False, load_optimizer_states=same_layout
        )
    if loaded is None:
        raise CheckpointError(f"DeepSpeed found nothing to load in {checkpoint.path}")
    if not same_layout:
        scatter_state(zero, gather_state(checkpoint, tag))
    return not same_layout
