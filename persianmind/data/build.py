"""Building the token shards of one source: read, clean, tokenise, pack, write; resumable at every shard."""

from __future__ import annotations

import errno
import fcntl
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from persianmind.data.manifest import (
    MANIFEST,
    FilterReport,
    Fingerprints,
    Manifest,
    ShardEntry,
    read_manifest,
    write_manifest,
)
from persianmind.data.packer import BestFitPacker
from persianmind.data.prepare import Prepared, Tokenised, prepared_batches
from persianmind.data.shards import Piece, split_document, token_dtype, write_shard
from persianmind.data.state import STATE, BuildState, read_state, write_state
from persianmind.data.tokenise import FolderTokenizer
from persianmind.errors import DataError, EmptyCorpusError, MachineError
from persianmind.files import hash_text
from persianmind.recipe import Recipe
from persianmind.text.documents import Taken, evaluated_fingerprints
from persianmind.text.duplicates import FingerprintSet, NearDuplicates
from persianmind.text.locate import fingerprint as source_fingerprint
from persianmind.text.locate import locate
from persianmind.text.quarantine import Quarantine
from persianmind.text.records import Position

QUARANTINE = "quarantine.jsonl"
SAMPLES_PER_FILTER = 5
# Changes when the same input would give other bytes: an older folder is then known not to match.
PACKING_VERSION = 1


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Where a build stands. files_done of files_total is the coarse share of the source that is read."""

    source: str
    rows_read: int
    documents: int
    tokens: int
    rows: int
    shards: int
    rejected: int
    files_done: int
    files_total: int
    elapsed_s: float


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
        SourceError: the source cannot be read, has too many bad rows, or none that is usable.
        DataError: `out` holds shards of something else, or the tokenizer folder is not usable.
        MachineError: no room on the disk; what was written stays and the same command goes on.
    """
    tokenizer = FolderTokenizer(tokenizer_dir)
    fingerprints = build_fingerprints(recipe, source_name, tokenizer)
    if (finished := _finished(out, fingerprints)) is not None:
        return finished
    try:
        with _only_builder(out):
            if (finished := _finished(out, fingerprints)) is not None:
                return finished
            build = _Build(recipe, source_name, tokenizer, out, fingerprints)
            return build.run(tokenizer_dir, workers, progress)
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
            recipe.heldout.share,
            recipe.seed,
            sorted(evaluated_fingerprints(recipe)),
        ],
        "packing": [data.row_length, data.shard_rows, data.open_rows],
        "prompt": data.prompt if source.kind == "instruction" else None,
        "language": source.language,
    }
    return Fingerprints(
        source=source_fingerprint(source_name, source),
        tokenizer=tokenizer.fingerprint(),
        options=hash_text(json.dumps(options, sort_keys=True)),
    )


def _finished(out: Path, fingerprints: Fingerprints) -> Manifest | None:
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


class _Build:
    """The running state of one build."""

    def __init__(
        self,
        recipe: Recipe,
        source_name: str,
        tokenizer: FolderTokenizer,
        out: Path,
        fingerprints: Fingerprints,
    ) -> None:
        self.recipe, self.name, self.tokenizer, self.out = recipe, source_name, tokenizer, out
        self.fingerprints = fingerprints
        self.evaluated = evaluated_fingerprints(recipe)
        self.quarantine = Quarantine(out / QUARANTINE)
        self.counts: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.samples: dict[str, list[dict[str, str]]] = {}
        self.shards: list[ShardEntry] = []
        self.closed: list[list[Piece]] = []
        self.position = Position()
        self.files_total = len(locate(source_name, recipe.sources[source_name]))
        self.started_s = time.monotonic()
        self._restore(read_state(out))

    def run(self, tokenizer_dir: Path, workers: int, progress: ProgressCallback | None) -> Manifest:
        """Builds to the end."""
        for batch in prepared_batches(self.recipe, self.name, tokenizer_dir, self.position, workers):
            self._account(batch)
            for document in batch.documents:
                self._pack(document)
            self.position = batch.after
            self.quarantine.check_budget(self.name, self.recipe.data.max_bad_row_share)
            if self._write_full_shards():
                self._save()
            if progress is not None:
                progress(self._progress())
        return self._finish(progress)

    def _account(self, batch: Prepared) -> None:
        self.counts["rows_read"] += batch.records
        self.counts["held_out"] += batch.held_out
        for row in batch.rejected:
            self.quarantine.reject(row.file, row.line, row.reason, row.sample, ends_file=row.ends_file)
        for _ in range(batch.records - len(batch.rejected)):
            self.quarantine.accept()
        for taken in batch.taken:
            self._take(taken)

    def _take(self, taken: Taken) -> None:
        self.taken[taken.reason] += 1
        samples = self.samples.setdefault(taken.reason, [])
        if len(samples) < SAMPLES_PER_FILTER:
            samples.append({"place": taken.place, "sample": taken.sample})

    def _pack(self, document: Tokenised) -> None:
        quality = self.recipe.quality
        if document.fingerprint in self.evaluated:
            return self._take(Taken(document.place, "held_out_text", document.sample))
        if quality.enabled and quality.exact_duplicates and not self.exact.add(document.fingerprint):
            return self._take(Taken(document.place, "exact_duplicate", document.sample))
        if document.near is not None and not self.near.add(document.near):
            return self._take(Taken(document.place, "near_duplicate", document.sample))
        pieces = split_document(document.tokens, self.recipe.data.row_length, document.targets)
        self.counts["documents"] += 1
        self.counts["documents_cut"] += len(pieces) > 1
        self.counts["tokens_in"] += len(document.tokens)
        self.counts["characters"] += document.characters
        for piece in pieces:
            self.closed.extend(self.packer.add(piece))
        return None

    def _write_full_shards(self) -> bool:
        """Writes every shard that is full; returns whether there was one."""
        shard_rows = self.recipe.data.shard_rows
        wrote = False
        while len(self.closed) >= shard_rows:
            self._write_shard(self.closed[:shard_rows])
            self.closed = self.closed[shard_rows:]
            wrote = True
        return wrote

    def _write_shard(self, rows: list[list[Piece]]) -> None:
        entry = write_shard(
            self.out,
            len(self.shards),
            rows,
            self.recipe.data.row_length,
            self.tokenizer.vocab_size,
            self.tokenizer.pad_id,
        )
        self.shards.append(entry)
        self.counts["tokens"] += entry.tokens
        self.counts["targets"] += sum(_target_count(piece) for row in rows for piece in row)

    def _finish(self, progress: ProgressCallback | None) -> Manifest:
        self.quarantine.close()
        self.quarantine.check_budget(self.name, self.recipe.data.max_bad_row_share, final=True)
        if self.counts["documents"] == 0:
            raise EmptyCorpusError(
                f"sources.{self.name} gave no usable document: {self.counts['rows_read']} rows read, "
                f"rejected {dict(self.quarantine.rejected)}, taken by filters {dict(self.taken)}, held out "
                f"{self.counts['held_out']}; give it more text, or look at the counts"
            )
        self.closed.extend(self.packer.finish())
        self._write_full_shards()
        if self.closed:
            self._write_shard(self.closed)
            self.closed = []
        manifest = self._manifest()
        write_manifest(self.out, manifest)
        (self.out / STATE).unlink(missing_ok=True)
        if progress is not None:
            progress(self._progress())
        return manifest

    def _manifest(self) -> Manifest:
        source = self.recipe.sources[self.name]
        rows = sum(entry.rows for entry in self.shards)
        row_length = self.recipe.data.row_length
        return Manifest(
            source=self.name,
            uris=[source.uri] if isinstance(source.uri, str) else list(source.uri),
            kind=source.kind,
            language=source.language,
            licence=source.licence,
            row_length=row_length,
            dtype="uint16" if token_dtype(self.tokenizer.vocab_size)().itemsize == 2 else "uint32",
            vocab_size=self.tokenizer.vocab_size,
            bos_id=self.tokenizer.bos_id,
            eos_id=self.tokenizer.eos_id,
            pad_id=self.tokenizer.pad_id,
            rows=rows,
            tokens=self.counts["tokens"],
            targets=self.counts["targets"],
            characters=self.counts["characters"],
            fill=self.counts["tokens"] / (rows * row_length),
            documents=self.counts["documents"],
            documents_cut=self.counts["documents_cut"],
            documents_held_out=self.counts["held_out"],
            tokens_lost=self.counts["tokens_in"] - self.counts["tokens"],
            rows_read=self.counts["rows_read"],
            rejected=dict(self.quarantine.rejected),
            damaged_files=self.quarantine.damaged_files,
            taken={
                reason: FilterReport(count=count, samples=self.samples[reason])
                for reason, count in sorted(self.taken.items())
            },
            fingerprints=self.fingerprints,
            shards=self.shards,
        )

    def _save(self) -> None:
        """Records everything the rest hangs on; only ever called after the shards are on disk."""
        signatures, added = self.near.state()
        facts = {
            "fingerprints": self.fingerprints.model_dump(),
            "position": asdict(self.position),
            "counts": dict(self.counts),
            "taken": dict(self.taken),
            "samples": self.samples,
            "quarantine": self.quarantine.state(),
            "shards": [entry.model_dump() for entry in self.shards],
            "near_added": added,
        }
        tables: dict[str, npt.NDArray[Any]] = {"exact": self.exact.table(), "near": signatures}
        write_state(self.out, BuildState(facts, self.packer.open_in_order(), self.closed, tables))

    def _restore(self, state: BuildState | None) -> None:
        """Goes on from a state of the same build; anything else in the folder is written over."""
        data, quality = self.recipe.data, self.recipe.quality
        self.packer: BestFitPacker[Piece] = BestFitPacker(data.row_length, data.open_rows)
        self.exact = FingerprintSet()
        self.near = NearDuplicates(quality.near_duplicate_threshold)
        if state is None or state.facts["fingerprints"] != self.fingerprints.model_dump():
            (self.out / STATE).unlink(missing_ok=True)
            (self.out / QUARANTINE).unlink(missing_ok=True)
            for stale in self.out.glob("shard-*.safetensors"):
                stale.unlink()
            return
        facts = state.facts
        self.position = Position(**facts["position"])
        self.counts, self.taken = Counter(facts["counts"]), Counter(facts["taken"])
        self.samples = facts["samples"]
        self.quarantine.restore(facts["quarantine"])
        self.shards = [ShardEntry.model_validate(entry) for entry in facts["shards"]]
        self.packer = BestFitPacker(data.row_length, data.open_rows, state.open_rows)
        self.closed = [list(row) for row in state.closed_rows]
        self.exact = FingerprintSet(table=state.tables["exact"])
        self.near.restore(state.tables["near"], facts["near_added"])

    def _progress(self) -> BuildProgress:
        rows = sum(entry.rows for entry in self.shards) + len(self.closed)
        return BuildProgress(
            source=self.name,
            rows_read=self.counts["rows_read"],
            documents=self.counts["documents"],
            tokens=self.counts["tokens_in"],
            rows=rows,
            shards=len(self.shards),
            rejected=self.quarantine.total_rejected,
            files_done=self.position.file,
            files_total=self.files_total,
            elapsed_s=time.monotonic() - self.started_s,
        )


def _target_count(piece: Piece) -> int:
    if piece.targets is None:
        return len(piece) - 1
    return int(piece.targets[1:].sum())
