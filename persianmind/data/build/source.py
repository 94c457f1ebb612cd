"""Building the token shards of one source: read, clean, tokenise, pack, write; resumable at every shard."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from persianmind.data.manifest import MANIFEST, Fingerprints, Manifest, read_manifest
from persianmind.data.build.job import BuildProgress, ShardJob
from persianmind.tokenizer import FolderTokenizer
from persianmind.common.errors import DataError, MachineError
from persianmind.common.checksum import hash_text
from persianmind.recipe import Recipe
from persianmind.text.documents import evaluated_fingerprints
from persianmind.text.sources.locate import fingerprint as source_fingerprint

# Changes when the same input would give other bytes: an older folder is then known not to match.
PACKING_VERSION = 1

ProgressCallback = Callable[[BuildProgress], None]


def build_source(
    recipe: Recipe,
    source_name: str,
    tokenizer_dir: Path,
    out: Path,
    progress: ProgressCallback | None = None,
    *,
    workers: int = 1,
) -> Manifest:
    """Packs the training split of one source into token shards in `out` and returns its manifest.

    A finished folder of the same source, tokenizer and options is returned at once. An interrupted build goes
    on from its last whole shard; the bytes do not depend on interruptions or on `workers`. A second process
    that builds the same folder waits for the first.

    Raises:
        SourceError: the source cannot be read, has too many bad sequences, or none that is usable.
        DataError: `out` holds shards of something else, or the tokenizer folder is not usable.
        MachineError: no room on the disk; what was written stays and the same command goes on.
    """
    # closed at once also when `progress` raises: the lock on the folder must not outlive this call
    with closing(build_steps(recipe, source_name, tokenizer_dir, out, workers=workers)) as steps:
        for step in steps:
            if progress is not None:
                progress(step)
    return read_manifest(out)


def build_steps(
    recipe: Recipe, source_name: str, tokenizer_dir: Path, out: Path, *, workers: int = 1
) -> Generator[BuildProgress, None, None]:
    """`build_source` a batch of records at a time; close the generator to stop in between."""
    tokenizer = FolderTokenizer(tokenizer_dir)
    fingerprints = build_fingerprints(recipe, source_name, tokenizer)
    if finished_build(out, fingerprints) is not None:
        return
    try:
        with _only_builder(out):
            if finished_build(out, fingerprints) is None:
                build = ShardJob(recipe, source_name, tokenizer, out, fingerprints)
                yield from build.steps(tokenizer_dir, workers)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise MachineError(
            f"no room left on the disk of {out}; make room and run the same command, it goes on "
            "from the last whole shard"
        ) from None


def build_fingerprints(recipe: Recipe, source_name: str, tokenizer: FolderTokenizer) -> Fingerprints:
    """What the shards of a source hang on; settings that change no byte (the error budget) are not in it."""
    source = recipe.sources[source_name]
    data = recipe.data
    options: dict[str, Any] = {
        "packing_version": PACKING_VERSION,
        "normalise": recipe.normalise.model_dump(mode="json"),
        "quality": recipe.quality.model_dump(mode="json"),
        "heldout": [
            bool(recipe.heldout.sources),
            recipe.heldout.ratio,
            recipe.seed,
            sorted(evaluated_fingerprints(recipe)),
        ],
        "packing": [data.seq_len, data.sequences_per_shard, data.open_sequences],
        "prompt": data.prompt if source.kind == "instruction" else None,
        "language": source.language,
    }
    return Fingerprints(
        source=source_fingerprint(source_name, source),
        tokenizer=tokenizer.fingerprint(),
        options=hash_text(json.dumps(options, sort_keys=True)),
    )


def finished_build(out: Path, fingerprints: Fingerprints) -> Manifest | None:
    """The manifest of a finished build that fits; None where there is none.

    Raises:
        DataError: a finished build of something else lies there.
    """
    if not (out / MANIFEST).is_file():
        return None
    manifest = read_manifest(out)
    differing = [
        name
        for name, value in fingerprints.model_dump().items()
        if value != getattr(manifest.fingerprints, name)
    ]
    if not differing:
        return manifest
    raise DataError(
        f"{out} holds shards that were built with another {' and '.join(differing)}; delete it to build "
        "anew, or give another output folder"
    )


@contextmanager
def _only_builder(out: Path) -> Iterator[None]:
    """Holds the folder for one process; the lock goes with the process, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
