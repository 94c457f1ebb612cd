"""Building the token shards of one source: read, clean, tokenise, pack, write; resumable at every shard."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

from filelock import FileLock

from persianmind.common.disk import disk_error
from persianmind.common.errors import DiskError
from persianmind.common.lock import held_when_free
from persianmind.data.build.job import BuildProgress, ShardJob
from persianmind.data.build.source import SourceJob, build_fingerprints, finished_build
from persianmind.data.manifest import BUILDING, Manifest, read_data_manifest
from persianmind.tokenizer import FolderTokenizer

ProgressCallback = Callable[[BuildProgress], None]


def build_source(job: SourceJob, progress: ProgressCallback | None = None, *, workers: int = 1) -> Manifest:
    """Packs the training split of one source into token shards in `job.out` and returns its manifest.

    A finished folder of the same source, tokenizer and options is returned at once. An interrupted build goes
    on from its last whole shard; the bytes do not depend on interruptions or on `workers`. A second process
    that builds the same folder waits for the first.

    Raises:
        SourceError: the source cannot be read, has too many bad records, or no usable document.
        DataError: the folder holds shards of something else, or the tokenizer folder is not usable.
        DiskError: the disk is full or failing; what was written stays and the same command goes on.
    """
    # closed at once also when `progress` raises: the lock on the folder must not outlive this call
    with closing(build_steps(job, workers=workers)) as steps:
        for step in steps:
            if progress is not None:
                progress(step)
    return read_data_manifest(job.out)


def build_steps(job: SourceJob, *, workers: int = 1) -> Generator[BuildProgress, None, None]:
    """`build_source` a batch of records at a time; close the generator to stop in between."""
    tokenizer = FolderTokenizer(job.tokenizer)
    fingerprints = build_fingerprints(job, tokenizer)
    if finished_build(job.out, fingerprints) is not None:
        return
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        # One process per folder; the kernel drops the lock with the process, however it ends.
        with held_when_free(FileLock(job.out / ".lock", thread_local=False), job.out / BUILDING):
            if finished_build(job.out, fingerprints) is None:
                yield from ShardJob(job, tokenizer, fingerprints).steps(workers)
    except OSError as error:
        if (named := disk_error(error, job.out)) is None:
            raise
        raise DiskError(f"{named}, it goes on from the last whole shard") from None
