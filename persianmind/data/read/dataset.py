"""Reading packed sequences: nothing is loaded but the sequences asked for, and no byte is used unchecked."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from persianmind.common.errors import DataError
from persianmind.data.manifest import Manifest, ShardEntry, read_data_manifest, verify_shard
from persianmind.data.read.sequence import TokenSequence, build_sequence
from persianmind.data.read.shard import ShardReader

MAX_OPEN_SHARDS = 128


class TokenDataset:
    """The sequences of one finished folder of token shards.

    A shard's hash is checked when this object first opens it, and each of its sequences whenever it is read.

    Raises:
        DataError: no manifest, a damaged manifest or shard, a path that leaves the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifest: Manifest | None = None
        self._shards: list[ShardEntry] = []
        self._ends: list[int] = []
        self._readers: dict[int, ShardReader] = {}
        self._open: OrderedDict[int, ShardReader] = OrderedDict()
        self._opening = threading.RLock()  # a step's sequences are read by another thread than its counts
        self.refresh()

    def refresh(self) -> None:
        """Reads what there is to know about the folder."""
        self._manifest = read_data_manifest(self.folder)
        self._set_shards(self._manifest.shards)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the finished build. Raises DataError while it is still being built."""
        return self._manifest or read_data_manifest(self.folder)

    @property
    def num_sequences(self) -> int | None:
        """How many sequences there are; None while that is not known yet."""
        return None if self._manifest is None else self._manifest.sequences

    def __len__(self) -> int:
        """The sequences that can be read now: all of a finished folder."""
        return self._ends[-1] if self._ends else 0

    def known_sequences(self, number: int, block_sequences: int | None) -> int | None:
        """What locating running number `number` of the order needs (`Mixture.sequence`): the sequences of
        the folder, or None if they are not known and `number` lies in a block of `block_sequences` that is
        whole."""
        return self.num_sequences

    def is_built(self, number: int, block_sequences: int | None) -> bool:
        """Whether `known_sequences` returns at once; looks at the files where needed."""
        if self._reaches(number, block_sequences):
            return True
        self.refresh()
        return self._reaches(number, block_sequences)

    def wait_for_shards(self, count: int, *, whole: bool) -> None:
        """Returns once the first `count` shards, or all of the source, can be read, as far as they will come;
        here they are there."""

    def _reaches(self, number: int, block_sequences: int | None) -> bool:
        if self.num_sequences is not None:
            return True
        return block_sequences is not None and (number // block_sequences + 1) * block_sequences <= len(self)

    def sequence(self, index: int) -> TokenSequence:
        """TokenSequence `index`, ready for the model. Raises IndexError outside [0, len)."""
        with self._opening:  # a file is not closed while another thread reads it
            shard, local = self._find(index)
            tokens, bits = shard.read(local)
        targets = None if bits is None else np.unpackbits(bits, count=len(tokens)).view(np.bool_)
        return build_sequence(tokens.astype(np.int64), shard.doc_lengths(local), targets)

    def doc_lengths(self, index: int) -> npt.NDArray[np.int32]:
        """Lengths of the documents of a sequence, in order."""
        shard, local = self._find(index)
        return shard.doc_lengths(local)

    def useful_tokens(self, index: int) -> int:
        """Tokens of documents in the sequence (padding not counted)."""
        shard, local = self._find(index)
        return shard.useful_tokens(local)

    def target_count(self, index: int) -> int:
        """Labels of the sequence that are not -100."""
        shard, local = self._find(index)
        return shard.target_count(local)

    @property
    def shards(self) -> list[ShardEntry]:
        """The shards as known now, from the first on."""
        return self._shards

    @property
    def readers(self) -> list[ShardReader]:
        """The shards that were read so far."""
        return list(self._readers.values())

    def verify(self) -> None:
        """Checks every shard now. Raises DataError naming the first damaged one."""
        for entry in self._shards:
            verify_shard(self.folder, entry)

    def _set_shards(self, shards: list[ShardEntry]) -> None:
        """The shards as now known; those known before are among them, or the folder was built anew."""
        if shards[: len(self._shards)] != self._shards:
            raise DataError(f"{self.folder} was built anew while it was read; run the same command again")
        self._shards = shards
        self._ends = list(accumulate(shard.sequences for shard in shards))

    def _find(self, index: int) -> tuple[ShardReader, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)} ({self.folder})")
        number = bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        return self._reader(number), index - first

    def _reader(self, number: int) -> ShardReader:
        with self._opening:
            if number not in self._readers:
                self._readers[number] = ShardReader(self.folder, self._shards[number])
            reader = self._open[number] = self._readers[number]
            self._open.move_to_end(number)
            if len(self._open) > MAX_OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
            return reader
