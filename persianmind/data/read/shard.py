"""Reading one token shard. The whole file is held against its manifest when it is opened, and every sequence
against what it was then whenever it is read.

By positioned reads, not by a memory map: a file that is cut short under a map ends the process by SIGBUS,
here it is an error that names it. What is overwritten while a run reads it, or rots, is never trained on.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from persianmind.common.errors import DataError
from persianmind.data.manifest import ShardEntry, damaged_shard, shard_path, verify_shard

DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "I64": np.int64}


class _Identity(NamedTuple):
    """What changes when a file is replaced or written to."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where the rows of a matrix lie in the file."""

    start: int
    row_bytes: int
    dtype: type[Any]

    def of(self, raw: bytes, row: int) -> bytes:
        """One row out of the bytes of the whole file."""
        begin = self.start + row * self.row_bytes
        return raw[begin : begin + self.row_bytes]


class ShardReader:
    """Sequences of one shard; holds their lengths and a hash of each, and no token.

    verified_s: when its file was last hashed whole, monotonic; hashing_s: how long that took.

    Raises:
        DataError: the file is missing, reached through a link, or not what `entry` says.
    """

    def __init__(self, folder: Path, entry: ShardEntry) -> None:
        self._descriptor: int | None = None
        self.folder, self.entry = folder, entry
        self.path = shard_path(folder, entry)
        started_s = time.monotonic()
        self._identity = self._stat()  # before reading: what is written meanwhile is seen the next time
        raw = self._read_at(0, entry.bytes)
        if self._identity.size_bytes != entry.bytes or not _is_as_written(raw, entry):
            raise damaged_shard(folder, self.path)
        self._take_up(raw)
        self.verified_s = time.monotonic()
        self.hashing_s = self.verified_s - started_s

    def _take_up(self, raw: bytes) -> None:
        """What is kept of a file whose hash was found right."""
        length = int.from_bytes(raw[:8], "little")
        header, begin = json.loads(raw[8 : 8 + length]), 8 + length
        header.pop("__metadata__", None)

        def array(name: str) -> npt.NDArray[Any]:
            dtype, (first, last) = DTYPES[header[name]["dtype"]], header[name]["data_offsets"]
            return np.frombuffer(raw[begin + first : begin + last], dtype=dtype)

        def rows(name: str) -> _Rows:
            dtype = DTYPES[header[name]["dtype"]]
            width = header[name]["shape"][1] * np.dtype(dtype).itemsize
            return _Rows(begin + header[name]["data_offsets"][0], width, dtype)

        self._doc_lengths_D, self._offsets_S = array("doc_lengths"), array("sequence_offsets")
        self._parts = [rows(name) for name in ("tokens", "targets") if name in header]
        documents_S = np.diff(self._offsets_S)
        starts_S = self._offsets_S[:-1]
        self._useful_S = np.add.reduceat(self._doc_lengths_D, starts_S)
        self._target_counts_S = self._useful_S - documents_S
        if "targets" in header:
            bits_SB = array("targets").reshape(len(documents_S), -1)
            self._target_counts_S = np.bitwise_count(bits_SB).sum(axis=1, dtype=np.int64)
        self._hashes_S = np.array(
            [_hash(*(part.of(raw, row) for part in self._parts)) for row in range(len(documents_S))],
            dtype=np.uint64,
        )

    def read(self, sequence: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
        """([L] token ids in the stored type, [ceil(L / 8)] packed target bits or None: every token but a
        document's first).

        Raises:
            DataError: the file is not any more what it was when it was opened.
        """
        raw = [self._read_at(part.start + sequence * part.row_bytes, part.row_bytes) for part in self._parts]
        if _hash(*raw) != int(self._hashes_S[sequence]):
            raise damaged_shard(self.folder, self.path)
        arrays = [np.frombuffer(one, dtype=part.dtype) for one, part in zip(raw, self._parts, strict=True)]
        return arrays[0], arrays[1] if len(arrays) > 1 else None

    def doc_lengths(self, sequence: int) -> npt.NDArray[np.int32]:
        """Lengths of the sequence's documents; their sum is the useful part of the sequence."""
        first, last = self._offsets_S[sequence : sequence + 2]
        lengths: npt.NDArray[np.int32] = self._doc_lengths_D[int(first) : int(last)]
        return lengths

    def useful_tokens(self, sequence: int) -> int:
        """Tokens of documents in the sequence."""
        return int(self._useful_S[sequence])

    def target_count(self, sequence: int) -> int:
        """Loss targets of the sequence."""
        return int(self._target_counts_S[sequence])

    @property
    def was_touched(self) -> bool:
        """Whether the file at this place is another one, or was written to, since it was hashed whole."""
        try:
            return self._stat() != self._identity
        except DataError:
            return True

    def verify(self) -> None:
        """Hashes the file that lies at this place now.

        Raises:
            DataError: it is missing, or not what the manifest says.
        """
        started_s = time.monotonic()
        identity = self._stat()
        verify_shard(self.folder, self.entry)
        self._identity = identity
        self.verified_s = time.monotonic()
        self.hashing_s = self.verified_s - started_s

    def close(self) -> None:
        """Lets go of the file; reading opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()

    def _stat(self) -> _Identity:
        try:
            stat = self.path.stat(follow_symlinks=False)
        except OSError:
            raise DataError(f"{self.path} is missing; delete {self.folder} and build again") from None
        return _Identity(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return self._descriptor

    def _read_at(self, place: int, size_bytes: int) -> bytes:
        """Exactly these bytes of the file."""
        parts = []
        try:
            while size_bytes:
                part = os.pread(self._open(), size_bytes, place)
                if not part:
                    raise damaged_shard(self.folder, self.path)
                parts.append(part)
                place, size_bytes = place + len(part), size_bytes - len(part)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}); look at its disk") from None
        return b"".join(parts)


def _is_as_written(raw: bytes, entry: ShardEntry) -> bool:
    return bool(xxhash.xxh3_128(raw).hexdigest() == entry.hash)


def _hash(*parts: bytes) -> int:
    return xxhash.xxh3_64_intdigest(b"".join(parts))
