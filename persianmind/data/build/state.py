"""The state of an unfinished build: one file, written whole after the shards it stands for.

Everything the rest of the build depends on is in it, so an interrupted build that goes on from it writes the
same bytes as one that was never interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from persianmind.common.atomic import write_bytes
from persianmind.common.checksum import dump_checked_line, parse_checked_line
from persianmind.data.build.shards import PackedSequence, Piece

STATE = ".state.safetensors"
_ARRAYS_HASH = "arrays_hash"

Arrays = dict[str, npt.NDArray[Any]]
logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class BuildState:
    """What a build goes on from.

    metadata: JSON (counts, position, fingerprints, finished shards); sequences: packed but in no shard yet;
    tables: of the duplicate rule.
    """

    metadata: dict[str, Any]
    open_sequences: Sequence[PackedSequence]
    closed_sequences: Sequence[PackedSequence]
    tables: Arrays


def write_state(folder: Path, state: BuildState) -> None:
    """Writes the state whole or not at all, with checksums over both of its parts."""
    arrays = {f"table.{name}": table for name, table in state.tables.items()}
    for name, sequences in (("open", state.open_sequences), ("closed", state.closed_sequences)):
        arrays |= {f"{name}.{key}": value for key, value in _flatten(sequences).items()}
    metadata = dump_checked_line({**state.metadata, _ARRAYS_HASH: _hash_arrays(arrays)})
    write_bytes(folder / STATE, save(arrays, metadata={"state": metadata}))


def read_state(folder: Path) -> BuildState | None:
    """The state left by an interrupted build; None where there is none.

    None also, with a warning, where it is damaged: the build is then started anew.
    """
    path = folder / STATE
    if not path.is_file() or path.is_symlink():
        return None
    state = _read(path)
    if state is None:
        logger.warning(
            "%s is damaged; it and the unfinished shards of %s are deleted and built anew", path, folder
        )
    return state


def _read(path: Path) -> BuildState | None:
    try:
        with safe_open(str(path), framework="numpy") as opened:
            metadata = parse_checked_line(opened.metadata()["state"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    if metadata is None or metadata.pop(_ARRAYS_HASH) != _hash_arrays(arrays):
        return None
    tables = {name.removeprefix("table."): a for name, a in arrays.items() if name.startswith("table.")}
    return BuildState(metadata, _unflatten(arrays, "open"), _unflatten(arrays, "closed"), tables)


def _hash_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _flatten(sequences: Sequence[PackedSequence]) -> Arrays:
    pieces = [piece for sequence in sequences for piece in sequence]
    tokens = [piece.tokens for piece in pieces]
    masked = any(piece.targets is not None for piece in pieces)
    targets = [piece.targets for piece in pieces if piece.targets is not None]
    return {
        "tokens": np.concatenate(tokens) if tokens else np.zeros(0, dtype=np.uint32),
        "lengths": np.array([len(piece) for piece in pieces], dtype=np.int64),
        "pieces": np.array([len(sequence) for sequence in sequences], dtype=np.int64),
        "targets": np.concatenate(targets) if masked else np.zeros(0, dtype=np.bool_),
    }


def _unflatten(arrays: Arrays, name: str) -> list[list[Piece]]:
    tokens, targets = arrays[f"{name}.tokens"], arrays[f"{name}.targets"]
    ends = np.cumsum(arrays[f"{name}.lengths"])
    starts = ends - arrays[f"{name}.lengths"]
    spans = iter(zip(starts.tolist(), ends.tolist(), strict=True))
    sequences = []
    for count in arrays[f"{name}.pieces"].tolist():
        sequence = []
        for _ in range(count):
            start, end = next(spans)
            sequence.append(Piece(tokens[start:end], targets[start:end] if len(targets) else None))
        sequences.append(sequence)
    return sequences
