"""The running state of one build: what is packed, written and counted, saved at every shard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from persianmind.data.manifest import (
    BUILDING,
    Building,
    Fingerprints,
    Manifest,
    ShardEntry,
    write_building,
    write_manifest,
)
from persianmind.data.build.packer import BestFitPacker
from persianmind.data.build.pipeline import Tokenised, prepared_batches
from persianmind.data.build.shards import Piece, split_document, token_dtype, write_shard
from persianmind.data.build.state import STATE, BuildState, read_state, write_state
from persianmind.data.build.stats import BuildStats
from persianmind.tokenizer import FolderTokenizer
from persianmind.recipe import Recipe
from persianmind.text.documents import Taken, evaluated_fingerprints
from persianmind.text.dedup import FingerprintSet, NearDuplicates
from persianmind.text.sources.locate import locate
from persianmind.text.records import Position

QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Where a build stands. files_done of files_total is the coarse share of the source that is read."""

    source: str
    records_read: int
    documents: int
    tokens: int
    sequences: int
    shards: int
    rejected: int
    files_done: int
    files_total: int
    elapsed_s: float


class ShardJob:
    """One build in its folder, from the state an interrupted one left. The caller holds the folder's lock."""

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
        self.tally = BuildStats(source_name, out / QUARANTINE, recipe.data.max_bad_record_ratio)
        self.shards: list[ShardEntry] = []
        self.closed: list[list[Piece]] = []
        self.position = Position()
        self.files_total = len(locate(source_name, recipe.sources[source_name]))
        self.started_s = time.monotonic()
        self._restore(read_state(out))

    def steps(self, tokenizer_dir: Path, workers: int) -> Iterator[BuildProgress]:
        """Builds to the end; yields after every batch of records, and once more when all is written."""
        for batch in prepared_batches(self.recipe, self.name, tokenizer_dir, self.position, workers):
            self.tally.account(batch)
            for document in batch.documents:
                self._pack(document)
            self.position = batch.after
            self.tally.check_budget()
            if self._write_full_shards():
                self._save()
            yield self._progress()
        self._finish()
        yield self._progress()

    def _pack(self, document: Tokenised) -> None:
        quality, counts = self.recipe.quality, self.tally.counts
        if document.fingerprint in self.evaluated:
            return self.tally.take(Taken(document.place, "held_out_text", document.sample))
        if quality.enabled and quality.exact_duplicates and not self.exact.add(document.fingerprint):
            return self.tally.take(Taken(document.place, "exact_duplicate", document.sample))
        if document.near is not None and not self.near.add(document.near):
            return self.tally.take(Taken(document.place, "near_duplicate", document.sample))
        pieces = split_document(document.tokens, self.recipe.data.seq_len, document.targets)
        counts["documents"] += 1
        counts["documents_cut"] += len(pieces) > 1
        counts["tokens_in"] += len(document.tokens)
        counts["characters"] += document.characters
        for piece in pieces:
            self.closed.extend(self.packer.add(piece))
        return None

    def _write_full_shards(self) -> bool:
        """Writes every shard that is full; returns whether there was one."""
        sequences_per_shard = self.recipe.data.sequences_per_shard
        wrote = False
        while len(self.closed) >= sequences_per_shard:
            self._write_shard(self.closed[:sequences_per_shard])
            self.closed = self.closed[sequences_per_shard:]
            wrote = True
        return wrote

    def _write_shard(self, sequences: list[list[Piece]]) -> None:
        entry = write_shard(
            self.out,
            len(self.shards),
            sequences,
            self.recipe.data.seq_len,
            self.tokenizer.vocab_size,
            self.tokenizer.pad_id,
        )
        self.shards.append(entry)
        self.tally.counts["tokens"] += entry.tokens
        self.tally.counts["targets"] += sum(_target_count(piece) for sequence in sequences for piece in sequence)

    def _finish(self) -> None:
        self.tally.close()
        self.closed.extend(self.packer.finish())
        self._write_full_shards()
        if self.closed:
            self._write_shard(self.closed)
            self.closed = []
        write_manifest(self.out, self._manifest())
        (self.out / STATE).unlink(missing_ok=True)

    def _manifest(self) -> Manifest:
        source = self.recipe.sources[self.name]
        sequences = sum(entry.sequences for entry in self.shards)
        seq_len = self.recipe.data.seq_len
        return Manifest(
            source=self.name,
            uris=[source.uri] if isinstance(source.uri, str) else list(source.uri),
            kind=source.kind,
            language=source.language,
            licence=source.licence,
            seq_len=seq_len,
            dtype="uint16" if token_dtype(self.tokenizer.vocab_size)().itemsize == 2 else "uint32",
            vocab_size=self.tokenizer.vocab_size,
            bos_id=self.tokenizer.bos_id,
            eos_id=self.tokenizer.eos_id,
            pad_id=self.tokenizer.pad_id,
            sequences=sequences,
            fill=self.tally.counts["tokens"] / (sequences * seq_len),
            fingerprints=self.fingerprints,
            shards=self.shards,
            **self.tally.manifest_fields(),
        )

    def _save(self) -> None:
        """Records everything the rest hangs on; only ever called after the shards are on disk."""
        signatures, added = self.near.state()
        facts = {
            "fingerprints": self.fingerprints.model_dump(),
            "position": asdict(self.position),
            **self.tally.state(),
            "shards": [entry.model_dump() for entry in self.shards],
            "near_added": added,
        }
        tables: dict[str, npt.NDArray[Any]] = {"exact": self.exact.table(), "near": signatures}
        write_state(self.out, BuildState(facts, self.packer.open_in_order(), self.closed, tables))
        self._publish()

    def _publish(self) -> None:
        """Lets readers use the shards so far. Only after the state: what they read is never built again."""
        write_building(self.out, Building(fingerprints=self.fingerprints, shards=self.shards))

    def _restore(self, state: BuildState | None) -> None:
        """Goes on from a state of the same build; anything else in the folder is written over."""
        data, quality = self.recipe.data, self.recipe.quality
        self.packer: BestFitPacker[Piece] = BestFitPacker(data.seq_len, data.open_sequences)
        self.exact = FingerprintSet()
        self.near = NearDuplicates(quality.near_duplicate_threshold)
        for torn in self.out.glob(".*.tmp"):  # of a writer that was killed: we hold the lock
            torn.unlink()
        if state is None or state.facts["fingerprints"] != self.fingerprints.model_dump():
            for stale in (BUILDING, STATE, QUARANTINE):  # the list first: it names what follows
                (self.out / stale).unlink(missing_ok=True)
            for shard in self.out.glob("shard-*.safetensors"):
                shard.unlink()
            return
        facts = state.facts
        self.position = Position(**facts["position"])
        self.tally.restore(facts)
        self.shards = [ShardEntry.model_validate(entry) for entry in facts["shards"]]
        self.packer = BestFitPacker(data.seq_len, data.open_sequences, state.open_sequences)
        self.closed = [list(sequence) for sequence in state.closed_sequences]
        self.exact = FingerprintSet(table=state.tables["exact"])
        self.near.restore(state.tables["near"], facts["near_added"])
        self._publish()

    def _progress(self) -> BuildProgress:
        sequences = sum(entry.sequences for entry in self.shards) + len(self.closed)
        return BuildProgress(
            source=self.name,
            records_read=self.tally.counts["records_read"],
            documents=self.tally.counts["documents"],
            tokens=self.tally.counts["tokens_in"],
            sequences=sequences,
            shards=len(self.shards),
            rejected=self.tally.quarantine.total_rejected,
            files_done=self.position.file,
            files_total=self.files_total,
            elapsed_s=time.monotonic() - self.started_s,
        )


def _target_count(piece: Piece) -> int:
    if piece.targets is None:
        return len(piece) - 1
    return int(piece.targets[1:].sum())
