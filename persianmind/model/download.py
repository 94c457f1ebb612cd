"""Downloading a base's large files so that a cut, even a killed process, costs only what was in flight.

huggingface_hub takes up a broken connection by itself, but begins a file anew in the next process: with
shards of 5 GB on a slow line, a power failure costs hours. Here the large files are fetched into the hub's
own cache under a name that stays; the hub's download then finds them there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from filelock import FileLock

from persianmind.common.errors import BaseModelError
from persianmind.common.lock import held_when_free
from persianmind.common.log import printable
from persianmind.common.progress import CountedWriter, count_work

LARGE_BYTES = 64 << 20
CONNECTIONS = 4
PART = ".persianmind-part"  # beside the blob it becomes
_READ_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class LargeFile:
    """One file of a repository. sha256: of its content, its name in the cache."""

    name: str
    size: int
    sha256: str
    blob: Path

    @property
    def part(self) -> Path:
        """What is here of it so far."""
        return self.blob.with_name(self.blob.name + PART)

    @property
    def bytes_here(self) -> int:
        """How much of it is here."""
        if self.blob.exists():
            return self.size
        return self.part.stat().st_size if self.part.exists() else 0


def large_files(
    name: str, info: Any, patterns: Sequence[str], least_bytes: int | None = None
) -> list[LargeFile]:
    """The files of a hub repository that are fetched here.

    Args:
        name: owner/name.
        info: huggingface_hub's ModelInfo with file metadata.
        patterns: which files are wanted.
        least_bytes: smaller ones are left to the hub's library; LARGE_BYTES unless told.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    # The hash becomes a file's name: nothing else may stand there.
    stored = {
        one.rfilename: one.lfs
        for one in info.siblings or ()
        if one.lfs is not None and re.fullmatch(r"[0-9a-f]{64}", one.lfs.sha256)
    }
    return [
        LargeFile(file, stored[file].size, stored[file].sha256, blobs / stored[file].sha256)
        for file in filter_repo_objects(list(stored), allow_patterns=list(patterns))
        if stored[file].size >= (LARGE_BYTES if least_bytes is None else least_bytes)
    ]


def fetch_large(name: str, patterns: Sequence[str], least_bytes: int | None = None) -> None:
    """Fetches the large files of a hub repository into the hub's cache, from where an earlier call was cut.

    Raises:
        BaseModelError: a file is not what the hub says it is.
        OSError: the network, the hub or the disk failed; what came so far stays.
    """
    from huggingface_hub import HfApi

    info = HfApi().model_info(name, files_metadata=True)
    missing = [one for one in large_files(name, info, patterns, least_bytes) if not one.blob.exists()]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(lambda one: _fetch(name, info.sha or "main", one), missing):
            pass


def _fetch(name: str, revision: str, file: LargeFile) -> None:
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    file.blob.parent.mkdir(parents=True, exist_ok=True)
    lock = file.part.with_name(file.part.name + ".lock")
    with held_when_free(FileLock(lock, thread_local=False), file.part):
        if file.blob.exists():  # another process was first
            return
        url = hf_hub_url(name, file.name, revision=revision, endpoint=constants.ENDPOINT)
        with file.part.open("ab") as handle:
            http_get(
                url,
                cast(BinaryIO, CountedWriter(handle)),
                resume_size=file.bytes_here,
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=printable(file.name),
            )
        if _sha256(file.part) != file.sha256:
            file.part.unlink()
            raise BaseModelError(
                f"base {name!r}: {file.name} did not arrive as the hub has it and was deleted; run the same "
                "command again"
            )
        file.part.replace(file.blob)
        lock.unlink(missing_ok=True)  # who waits for it finds the blob


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_READ_BYTES):
            digest.update(block)
            count_work(len(block))
    return digest.hexdigest()
