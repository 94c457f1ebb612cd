"""The running state of one build: what is packed, written and counted, saved at every shard."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from persianmind.common.errors import DataError
from persianmind.data.build.packer import BestFitPacker
from persianmind.data.build.pipeline import TokenisedDocument, tokenised_batches
from persianmind.data.build.shards import Piece, split_document, target_count, token_dtype, write_shard
from persianmind.data.build.source import SourceJob
from persianmind.data.build.state import STATE, BuildState, read_state, write_state
from persianmind.data.build.stats import BuildStats
from persianmind.data.manifest import (
    BUILDING,
    Building,
    Fingerprints,
    Manifest,
    ShardEntry,
    verify_shard,
    write_building,
    write_data_manifest,
)
from persianmind.text.dedup import DuplicateRule
from persianmind.text.heldout import held_out_fingerprints
from persianmind.text.record import Dropped, Position
from persianmind.text.sources.locate import list_source, source_uris
from persianmind.tokenizer import FolderTokenizer

QUARANTINE = "quarantine.jsonl"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Where a build stands. source: what is built, by its packing's name. files_done of files_total is the
    coarse part of the source that is read."""

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

    def __init__(self, job: SourceJob, tokenizer: FolderTokenizer, fingerprints: Fingerprints) -> None:
        self.job, self.tokenizer, self.fingerprints = job, tokenizer, fingerprints
        self.out, self.data = job.out, job.data
        self.listing = list_source(job.name, job.spec.source)
        self.stats = BuildStats(job.name, job.spec.source, job.out / QUARANTINE, job.data, self.listing.files)
        self.duplicates = DuplicateRule(job.spec.quality, held_out_fingerprints(job.heldout))
        self.packer: BestFitPacker[Piece] = BestFitPacker(self.data.seq_len, self.data.open_sequences)
        self.shards: list[ShardEntry] = []
        self.closed: list[list[Piece]] = []
        self.position = Position()
        self.started_s = time.monotonic()
        self._restore(read_state(job.out))

    def steps(self, workers: int) -> Iterator[BuildProgress]:
        """Builds to the end; yields after every batch of records, and once more when all is written."""
        for batch in tokenised_batches(self.job, self.position, workers):
            self.stats.add_batch(batch)
            for document in batch.documents:
                self._pack(document)
            self.position = batch.after
            self.stats.check_budget()
            if self._write_full_shards():
                self._save()
            yield self._progress()
        self._finish()
        yield self._progress()

    def _pack(self, document: TokenisedDocument) -> None:
        reason = self.duplicates.reason(document.fingerprint, document.signature)
        if reason is not None:
            self.stats.add_dropped(Dropped(document.place, reason, document.sample))
            return
        pieces = split_document(document.tokens, self.data.seq_len, document.targets)
        self.stats.add_packed(document, len(pieces))
        for piece in pieces:
            self.closed.extend(self.packer.add(piece))

    def _write_full_shards(self) -> bool:
        """Writes every shard that is full; returns whether there was one."""
        size = self.data.sequences_per_shard
        wrote = False
        while len(self.closed) >= size:
            self._write_shard(self.closed[:size])
            self.closed = self.closed[size:]
            wrote = True
        return wrote

    def _write_shard(self, sequences: list[list[Piece]]) -> None:
        tokenizer = self.tokenizer
        entry = write_shard(
            self.out,
            len(self.shards),
            sequences,
            self.data.seq_len,
            tokenizer.vocab_size,
            tokenizer.pad_id,
        )
        self.shards.append(entry)
        self.stats.counts["tokens"] += entry.tokens
        self.stats.counts["targets"] += sum(target_count(piece) for one in sequences for piece in one)

    def _finish(self) -> None:
        self.stats.close()
        self.closed.extend(self.packer.finish())
        self._write_full_shards()
        if self.closed:
            self._write_shard(self.closed)
            self.closed = []
        write_data_manifest(self.out, self._manifest())
        (self.out / STATE).unlink(missing_ok=True)

    def _manifest(self) -> Manifest:
        source, tokenizer = self.job.spec.source, self.tokenizer
        sequences = sum(entry.sequences for entry in self.shards)
        return Manifest(
            source=self.job.name,
            uris=source_uris(source),
            kind=source.kind,
            language=source.target,
            licence=source.licence,
            seq_len=self.data.seq_len,
            dtype="uint16" if token_dtype(tokenizer.vocab_size)().itemsize == 2 else "uint32",
            vocab_size=tokenizer.vocab_size,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            sequences=sequences,
            fill=self.stats.counts["tokens"] / (sequences * self.data.seq_len),
            fingerprints=self.fingerprints,
            shards=self.shards,
            files_left_out=list(self.listing.left_out),
            **self.stats.manifest_fields(),
        )

    def _save(self) -> None:
        """Records everything the rest depends on; only ever called after the shards are on disk."""
        tables, signatures_added = self.duplicates.state()
        metadata = {
            "fingerprints": self.fingerprints.model_dump(),
            "position": asdict(self.position),
            **self.stats.state(),
            "shards": [entry.model_dump() for entry in self.shards],
            "signatures_added": signatures_added,
        }
        write_state(self.out, BuildState(metadata, self.packer.open_in_order(), self.closed, tables))
        self._publish()

    def _publish(self) -> None:
        """Lets readers use the shards so far. Only after the state: what they read is never built again."""
        write_building(self.out, Building(fingerprints=self.fingerprints, shards=self.shards))

    def _restore(self, state: BuildState | None) -> None:
        """Goes on from a state of the same build; anything else in the folder is written over."""
        for torn in self.out.glob(".*.tmp"):  # of a writer that was killed: we hold the lock
            torn.unlink()
        if state is None or not self._fits(state):
            for stale in (BUILDING, STATE, QUARANTINE):  # the list first: it names what follows
                (self.out / stale).unlink(missing_ok=True)
            for shard in self.out.glob("shard-*.safetensors"):
                shard.unlink()
            return
        metadata = state.metadata
        self.position = Position(**metadata["position"])
        self.stats.restore(metadata)
        self.shards = [ShardEntry.model_validate(entry) for entry in metadata["shards"]]
        self.packer = BestFitPacker(self.data.seq_len, self.data.open_sequences, state.open_sequences)
        self.closed = [list(sequence) for sequence in state.closed_sequences]
        self.duplicates.restore(state.tables, metadata["signatures_added"])
        self._publish()

    def _fits(self, state: BuildState) -> bool:
        """Whether it is of this build, and the shards that it goes on from are whole."""
        if state.metadata["fingerprints"] != self.fingerprints.model_dump():
            return False
        try:
            for entry in state.metadata["shards"]:
                verify_shard(self.out, ShardEntry.model_validate(entry))
        except DataError as error:
            logger.warning("%s; the build of %s starts anew", str(error).partition(";")[0], self.out)
            return False
        return True

    def _progress(self) -> BuildProgress:
        counts = self.stats.counts
        return BuildProgress(
            source=self.job.packing,
            records_read=counts["records_read"],
            documents=counts["documents"],
            tokens=counts["tokens_in"],
            sequences=sum(entry.sequences for entry in self.shards) + len(self.closed),
            shards=len(self.shards),
            rejected=self.stats.quarantine.total_rejected,
            files_done=self.position.file,
            files_total=len(self.listing.files),
            elapsed_s=time.monotonic() - self.started_s,
        )
