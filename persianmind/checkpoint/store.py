"""The checkpoints of a run: saving one so that it is whole or absent, and finding the newest good one.

checkpoints/
  step-200/            manifest.json names every other file below; step-200.2 if step 200 is saved again
  latest.json          the newest committed one; a convenience for people, never followed as a path
  .tmp-step-300/       a save that is not committed; the next save removes it
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from persianmind.checkpoint.group import SOLO, RankGroup, SoloGroup, describe, on_rank_0, together
from persianmind.checkpoint.manifest import FileEntry, StoredCheckpoint, read_manifest, write_manifest
from persianmind.checkpoint.pointer import write_pointer
from persianmind.checkpoint.retention import (
    TEMPORARY,
    checkpoint_folders,
    folder_step,
    remove_checkpoint,
    remove_leftovers,
    superseded,
)
from persianmind.checkpoint.verify import examine_checkpoint, list_files, share_of
from persianmind.common.atomic import fsync_file, fsync_folder
from persianmind.common.checksum import hash_file
from persianmind.common.errors import CheckpointError, CheckpointWriteError

__all__ = ["PHASES", "CheckpointStore", "RankGroup", "SoloGroup", "StoredCheckpoint"]

MARKER = ".marker"
SPARE_BYTES = 1 << 20
PHASES = ("begun", "prepared", "written", "hashed", "manifest", "renamed", "pointed", "retired")


logger = logging.getLogger(__name__)


def _no_phase(_: str) -> None:
    return None


class CheckpointStore:
    """The checkpoints below `root` (one process per rank holds one; a `RunLock` keeps other runs out).

    `on_phase` is called on every rank as a save passes each of `PHASES`; tests break saves there.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep_last: int,
        keep_every_steps: int | None,
        on_phase: Callable[[str], None] = _no_phase,
    ) -> None:
        self.root = root
        self._keep_last = keep_last
        self._keep_every_steps = keep_every_steps
        self._on_phase = on_phase
        self._known_bad: set[str] = set()
        self.keep_step: int | None = None  # its newest checkpoint is never removed

    # --- saving ---------------------------------------------------------------------------------------
    def save(
        self,
        step: int,
        metadata: Mapping[str, Any],
        write: Callable[[Path], None],
        group: RankGroup = SOLO,
        *,
        estimate_bytes: int | None = None,
    ) -> Path:
        """Commits one checkpoint; every rank calls this with its own `write`, which fills the given folder.

        `metadata` of rank 0 count. `estimate_bytes` is the expected size of all ranks' files, used for the
        check of free space until a checkpoint of real size exists.

        Raises:
            CheckpointWriteError: (the same on every rank) something failed on some rank; the temporary
                folder is gone and older checkpoints are as they were.
        """
        self._on_phase("begun")
        temporary = self.root / f"{TEMPORARY}step-{step}"
        what = f"the checkpoint of step {step} was not saved (older ones are untouched)"

        def all_ranks(action: Callable[[], Any]) -> list[Any]:
            return together(group, action, what, CheckpointWriteError)

        try:
            token = all_ranks(on_rank_0(group, lambda: self._prepare(temporary, estimate_bytes)))[0]
            all_ranks(lambda: _check_shared(temporary, str(token)))
            self._on_phase("prepared")
            all_ranks(lambda: write(temporary))
            self._on_phase("written")
            sizes_bytes: dict[str, int] = all_ranks(on_rank_0(group, lambda: _written_files(temporary)))[0]
            mine = share_of(sizes_bytes, group.rank, group.world_size)
            digests = all_ranks(lambda: _secure(temporary, mine))
            self._on_phase("hashed")
            files = {
                name: FileEntry(sizes_bytes[name], digest)
                for share in digests
                for name, digest in share.items()
            }
            commit = on_rank_0(
                group, lambda: self._commit(temporary, step, metadata, files, group.world_size)
            )
            final = self.root / str(all_ranks(commit)[0])
        except CheckpointWriteError:
            # Every rank has agreed on the failure, so nobody writes there any more.
            if group.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        if group.rank == 0:
            self._retire()
        self._on_phase("retired")
        return final

    def _prepare(self, temporary: Path, estimate_bytes: int | None) -> str:
        self.root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.root)
        self._check_space(estimate_bytes)
        temporary.mkdir()
        token = token_hex(16)
        (temporary / MARKER).write_text(token, encoding="ascii")
        return token

    def _check_space(self, estimate_bytes: int | None) -> None:
        newest = max(self.readable(), key=lambda one: one.sequence, default=None)
        expected_bytes = max(newest.size_bytes if newest else 0, estimate_bytes or 0) + SPARE_BYTES
        free_bytes = shutil.disk_usage(self.root).free
        if free_bytes < expected_bytes:
            raise CheckpointWriteError(
                f"{self.root} has {free_bytes / 1e9:.3f} GB free and a checkpoint takes about "
                f"{expected_bytes / 1e9:.3f} GB; free some space or lower checkpoint.keep_last"
            )

    def _commit(
        self,
        temporary: Path,
        step: int,
        metadata: Mapping[str, Any],
        files: Mapping[str, FileEntry],
        world: int,
    ) -> str:
        known = self.readable()
        checkpoint = StoredCheckpoint(
            path=temporary,
            step=step,
            sequence=1 + max((one.sequence for one in known), default=0),
            world_size=world,
            saved_at=datetime.now(UTC).isoformat(timespec="seconds"),
            metadata=metadata,
            files=files,
            checksum="",
        )
        write_manifest(temporary, checkpoint)
        self._on_phase("manifest")
        final = _free_name(self.root, step)
        temporary.rename(final)
        fsync_folder(self.root)
        self._on_phase("renamed")
        write_pointer(self.root, final.name, step, checkpoint.sequence)
        self._on_phase("pointed")
        return final.name

    def _retire(self) -> None:
        """Removes what is superseded. Damaged ones do not count as kept, and go once `keep_last` good ones
        are newer than they are."""
        readable = self.readable()
        good = [one for one in readable if one.path.name not in self._known_bad]
        rules = {"keep_every_steps": self._keep_every_steps, "keep_step": self.keep_step}
        doomed = [one.path for one in superseded(good, keep_last=self._keep_last, **rules)]
        if len(good) >= self._keep_last:
            horizon = good[self._keep_last - 1]
            doomed += [one.path for one in readable if one not in good and one.sequence < horizon.sequence]
            seen = {one.path for one in readable}
            unreadable = [folder for folder in checkpoint_folders(self.root) if folder not in seen]
            doomed += [folder for folder in unreadable if folder_step(folder) < horizon.step]
        for folder in doomed:
            try:
                remove_checkpoint(folder)
            except OSError as error:
                logger.warning(f"the old checkpoint {folder} could not be removed: {describe(error)}")

    # --- finding --------------------------------------------------------------------------------------
    def readable(self) -> list[StoredCheckpoint]:
        """Every checkpoint whose manifest is sound, newest first; contents are not verified here."""
        checkpoints = []
        for folder in checkpoint_folders(self.root):
            try:
                checkpoints.append(read_manifest(folder))
            except CheckpointError:
                continue
        return sorted(checkpoints, key=lambda one: one.sequence, reverse=True)

    def newest_good(self, group: RankGroup = SOLO) -> StoredCheckpoint | None:
        """The newest checkpoint of which every byte is as it was written; None if there never was one.

        Ranks share the reading and return the same one. Each bad one is named in the log of rank 0.

        Raises:
            CheckpointError: (on every rank) checkpoints exist and none is good. Starting afresh is for the
                user to decide, by moving the folder away.
        """
        listing = on_rank_0(group, self._newest_first)
        names = together(group, listing, f"{self.root} cannot be read")[0] or []
        for position, name in enumerate(names):
            checkpoint, problems = examine_checkpoint(self.root / name, group)
            if checkpoint is not None and not problems:
                if position and group.rank == 0:
                    logger.warning(f"resuming from the older checkpoint {checkpoint.path}, which is whole")
                return checkpoint
            self._known_bad.add(name)
            if group.rank == 0:
                logger.warning(f"the checkpoint {self.root / name} is not usable: {_shortened(problems)}")
        if names:
            raise CheckpointError(
                f"none of the {len(names)} checkpoints in {self.root} is whole ({', '.join(names)}); "
                "restore one from a copy, or move the folder away to start afresh"
            )
        return None

    def _newest_first(self) -> list[str]:
        """Names to try in order: by sequence; one whose manifest cannot be read comes before the first of a
        lower step, so that it is reported exactly when it may have been the one to resume from."""
        readable = self.readable()
        order = [(one.path.name, one.step) for one in readable]
        names = {name for name, _ in order}
        for folder in checkpoint_folders(self.root):
            if folder.name not in names:
                step = folder_step(folder)
                place = next((i for i, (_, other) in enumerate(order) if other < step), len(order))
                order.insert(place, (folder.name, step))
        return [name for name, _ in order]


def _check_shared(temporary: Path, token: str) -> None:
    try:
        seen = (temporary / MARKER).read_text(encoding="ascii")
    except OSError:
        seen = ""
    if seen != token:
        raise CheckpointWriteError(
            f"{temporary} was made by rank 0 and is not visible here; put the run folder on storage that "
            "all nodes share"
        )


def _written_files(temporary: Path) -> dict[str, int]:
    (temporary / MARKER).unlink()
    sizes_bytes = list_files(temporary)
    if not sizes_bytes:
        raise CheckpointWriteError("no rank wrote any file")
    for folder in {(temporary / name).parent for name in sizes_bytes}:
        fsync_folder(folder)
    return sizes_bytes


def _secure(temporary: Path, names: list[str]) -> dict[str, str]:
    digests = {}
    for name in names:
        fsync_file(temporary / name)
        digests[name] = hash_file(temporary / name)
    return digests


def _free_name(root: Path, step: int) -> Path:
    """`step-N`, or `step-N.2` and so on: a committed checkpoint is never overwritten, so there is no moment
    at which neither the old nor the new one is whole."""
    final, copy = root / f"step-{step}", 1
    while final.exists() or final.is_symlink():
        copy += 1
        final = root / f"step-{step}.{copy}"
    return final


def _shortened(problems: list[str], limit: int = 5) -> str:
    more = f"; and {len(problems) - limit} more" if len(problems) > limit else ""
    return "; ".join(problems[:limit]) + more
