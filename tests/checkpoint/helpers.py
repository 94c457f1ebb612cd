"""Shared by the checkpoint tests: ranks as threads, small checkpoints, and ways to damage them."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persianmind.checkpoint import verify
from persianmind.checkpoint.manifest import FileEntry, StoredCheckpoint, read_manifest, write_manifest
from persianmind.checkpoint.store import CheckpointStore
from persianmind.common.checksum import hash_file
from tests.support.log import logged

BARRIER_TIMEOUT_S = 20.0


class ThreadGroup:
    """One rank of a group whose ranks are threads of this process."""

    def __init__(self, rank: int, world_size: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.rank, self.world_size, self._barrier, self._slots = rank, world_size, barrier, slots

    def all_gather(self, value: Any) -> list[Any]:
        self._slots[self.rank] = value
        self._barrier.wait()
        gathered = list(self._slots)
        self._barrier.wait()
        return gathered


def on_ranks(world_size: int, action: Callable[[ThreadGroup], Any]) -> list[Any]:
    """Runs `action` on every rank at once; returns each rank's result or the exception it raised.

    A rank left waiting for another breaks the barrier after 20 s: a hang is a failure, not a hung test.
    """
    barrier, slots = threading.Barrier(world_size, timeout=BARRIER_TIMEOUT_S), [None] * world_size
    outcomes: list[Any] = [None] * world_size

    def work(rank: int) -> None:
        try:
            outcomes[rank] = action(ThreadGroup(rank, world_size, barrier, slots))
        except Exception as error:
            outcomes[rank] = error
            if isinstance(error, threading.BrokenBarrierError):
                barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.sprung),))


def newest_and_log(root: Path, **options: Any) -> tuple[StoredCheckpoint | None, list[str]]:
    """What a resume would use, and everything it warned of."""
    with logged() as lines:
        found = make_store(root, **options).newest_good()
    return found, lines


def newest(root: Path, **options: Any) -> StoredCheckpoint:
    """The newest whole checkpoint, which must be found without a word."""
    found, lines = newest_and_log(root, **options)
    assert found is not None and lines == []
    return found


def make_store(root: Path, keep_last: int = 3, **options: Any) -> CheckpointStore:
    return CheckpointStore(root, keep_last=keep_last, keep_every_steps=None, **options)


def contents(step: int) -> dict[str, bytes]:
    """The files of a small checkpoint; every step has other bytes of the same lengths."""
    return {
        "deepspeed/rank_0.pt": bytes((i * 7 + step) % 256 for i in range(700)),
        "deepspeed/rank_1.pt": bytes((i * 11 + step) % 256 for i in range(700)),
        "rng-rank-0.json": b'{"step": %05d}' % step,
    }


def write_contents(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, content in contents(step).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    return write


def save(store: CheckpointStore, step: int) -> Path:
    return store.save(step, {"step": step, "stage": "pretrain"}, write_contents(step))


def two_checkpoints(root: Path) -> CheckpointStore:
    store = make_store(root)
    save(store, 10)
    save(store, 20)
    return store


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(bytes(content))


def flips_found(folder: Path, count: int, seed: int) -> int:
    """Flips `count` single bits, each anywhere in the checkpoint, and counts how many are found and named."""
    draw = random.Random(seed)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sizes = [(folder / name).stat().st_size for name in names]
    found = 0
    for _ in range(count):
        name = draw.choices(names, weights=sizes)[0]
        bit = draw.randrange((folder / name).stat().st_size * 8)
        flip_bit(folder / name, bit)
        _, problems = verify.examine_checkpoint(folder)
        found += any(name in problem for problem in problems)
        flip_bit(folder / name, bit)
    assert verify.examine_checkpoint(folder)[1] == []
    return found


def forge_manifest(folder: Path, extra_names: tuple[str, ...] = ()) -> StoredCheckpoint:
    """Rewrites a checkpoint's manifest to match what is in the folder now, as an attacker would."""
    old = read_manifest(folder)
    files = {name: FileEntry((folder / name).stat().st_size, hash_file(folder / name)) for name in old.files}
    files |= {name: FileEntry(1, "0" * 32) for name in extra_names}
    write_manifest(folder, StoredCheckpoint(**{**vars(old), "files": files}))
    return StoredCheckpoint(**{**vars(old), "files": files})
