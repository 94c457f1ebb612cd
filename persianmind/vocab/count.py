"""Counting words over any amount of text at bounded memory, with a result that no order can change."""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import xxhash

from persianmind.common.disk import scratch_folder, writing
from persianmind.common.progress import counted
from persianmind.language.script import Script

_CHUNK = re.compile(r" ?\S+")
MAX_CHUNK_CHARACTERS = 200  # longer runs without a space are data, not words
# Where no spaces part words, a run is cut instead of left out.
_UNSPACED_CHUNK = re.compile(rf" ?\S{{1,{MAX_CHUNK_CHARACTERS - 1}}}")


class ChunkCounter:
    """Counts chunks: a run of non-space characters with the one space before it, where it has one.

    No pre-tokenizer joins more than that, so unique chunks are all that training has to see. Counts are
    exact: above `max_in_memory` chunks they are spilled to sorted files, merged at the end.
    """

    def __init__(self, spill_folder: Path, script: Script, max_in_memory: int = 2_000_000) -> None:
        """script: chunks without a character of it are counted as words and then left out."""
        self._counts: Counter[str] = Counter()
        self._folder = spill_folder
        self._character = script.character
        self._chunk = _CHUNK if script.is_spaced else _UNSPACED_CHUNK
        self._max = max_in_memory
        self.words = 0
        self._runs: list[Path] = []

    def add(self, text: str) -> None:
        """Counts the chunks of one document."""
        chunks = self._chunk.findall(text)
        self.words += len(chunks)
        self._counts.update(chunks)
        if len(self._counts) > self._max:
            self._spill()

    def most_common(self, limit: int) -> dict[str, int]:
        """The `limit` most frequent chunks that hold the script; ties are settled by the chunk itself."""
        streams: list[Iterable[tuple[str, int]]] = [_read_run(run) for run in self._runs]
        merged = heapq.merge(*streams, self._sorted())
        summed = (
            (sum(count for _, count in group), chunk)
            for chunk, group in itertools.groupby(counted(merged), key=lambda item: item[0])
        )
        top = heapq.nsmallest(limit, ((-count, chunk) for count, chunk in summed))
        return {chunk: -negative for negative, chunk in top}

    def _sorted(self) -> list[tuple[str, int]]:
        return sorted(
            (chunk, count)
            for chunk, count in self._counts.items()
            if len(chunk) <= MAX_CHUNK_CHARACTERS and self._character.search(chunk)
        )

    def _spill(self) -> None:
        run = self._folder / f"run-{len(self._runs):06d}.txt"
        with writing(run), run.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as handle:
            handle.writelines(f"{count}\t{chunk}\n" for chunk, count in self._sorted())
        self._runs.append(run)
        self._counts.clear()


def _read_run(path: Path) -> Iterator[tuple[str, int]]:
    with path.open(encoding="utf-8", errors="surrogatepass", newline="\n") as handle:
        for line in handle:
            count, _, chunk = line.rstrip("\n").partition("\t")
            yield chunk, int(count)


class DocumentSample:
    """A sample of documents that depends on their text alone: those with the smallest hashes."""

    def __init__(self, documents: int = 1_000, max_characters: int = 20_000) -> None:
        self._limit = documents
        self._max_characters = max_characters
        self._heap: list[tuple[int, str, int]] = []
        self._offered = 0
        self._seen: set[int] = set()

    def add(self, text: str) -> None:
        """Offers one document."""
        self._offered += 1
        rank = xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
        if rank in self._seen or (len(self._heap) == self._limit and -rank <= self._heap[0][0]):
            return
        self._seen.add(rank)
        heapq.heappush(self._heap, (-rank, text[: self._max_characters], self._offered))
        if len(self._heap) > self._limit:
            self._seen.discard(-heapq.heappop(self._heap)[0])

    def texts(self) -> list[str]:
        """The sampled documents, cut at `max_characters`, in an order that only their text decides."""
        return [text for _, text, _ in sorted(self._heap, reverse=True)]

    def records(self) -> list[int]:
        """For each of them its number in the text, from 1 in the order of reading."""
        return [record for _, _, record in sorted(self._heap, reverse=True)]


def count_chunks(
    texts: Iterable[str],
    sample: DocumentSample,
    script: Script,
    *,
    limit: int,
    max_in_memory: int = 2_000_000,
) -> tuple[dict[str, int], int]:
    """Counts chunks in one pass, and fills `sample` on the way.

    Args:
        texts: documents.
        sample: is offered each of them.
        script: chunks without a character of it are left out.
        limit: how many chunks are wanted.
        max_in_memory: how many kinds of chunk are held before they are spilled to disk.

    Returns:
        The `limit` most frequent chunks with their counts, and the number of all words.
    """
    with scratch_folder("persianmind-vocab-") as folder:
        counter = ChunkCounter(folder, script, max_in_memory)
        for text in texts:
            counter.add(text)
            sample.add(text)
        return counter.most_common(limit), counter.words
