"""Records of a source as the model will see them: through the whole of a build but packing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from persianmind.common.errors import SourceError
from persianmind.common.log import one_line
from persianmind.data.build.pipeline import Pipeline, TokenisedDocument
from persianmind.data.build.source import source_job
from persianmind.data.shown import ShownDocument, shown_document
from persianmind.recipe import Recipe
from persianmind.text.decode import sample_text
from persianmind.text.sources.locate import source_uris
from persianmind.text.stream import check_sources, read_records
from persianmind.tokenizer import FolderTokenizer


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """One record. verdict: `trained on`, or what became of it. sample: its beginning, where it is not trained
    on; document: where it is."""

    place: str
    verdict: str
    sample: str = ""
    document: ShownDocument | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def shown_records(recipe: Recipe, tokenizer: Path, *, first: int, count: int) -> list[ShownRecord]:
    """Some records of the recipe's only source, from number `first` on.

    Raises:
        SourceError: the source cannot be read, or has fewer records.
        DataError: this tokenizer cannot write dialogues.
    """
    name = next(iter(recipe.sources))
    check_sources(recipe.sources)
    job = source_job(recipe, recipe.packing(name), tokenizer=tokenizer, out=Path(), heldout=Path())
    pipeline, model = Pipeline(job), FolderTokenizer(tokenizer)
    found = []
    for raw in islice(read_records(name, recipe.sources[name]), first - 1, first - 1 + count):
        batch = pipeline.run([raw])
        if batch.rejected:
            one = batch.rejected[0]
            found.append(ShownRecord(raw.place, f"rejected: {one.reason}", sample_text(one.sample)))
        elif batch.dropped:
            dropped = batch.dropped[0]
            found.append(ShownRecord(raw.place, f"dropped: {dropped.reason}", dropped.sample))
        elif batch.documents:
            found.append(ShownRecord(raw.place, "trained on", "", _shown(model, batch.documents[0])))
        else:
            found.append(ShownRecord(raw.place, "held out"))
    if not found:
        where = ", ".join(source_uris(recipe.sources[name]))
        raise SourceError(f"{where} has no record {first}; give a lower --record")
    return found


def lines_of(record: ShownRecord) -> Iterator[str]:
    """For people: a line about the record, and its text with what is learnt between brackets."""
    shown = record.document
    counts = record.verdict if shown is None else f"{shown.tokens:,} tokens, {shown.targets:,} targets"
    yield f"--- {one_line(record.place)}: {counts}"
    yield record.sample if shown is None else shown.marked


def _shown(tokenizer: FolderTokenizer, document: TokenisedDocument) -> ShownDocument:
    """Of a text everything but its first token is learnt: nothing stands before that."""
    targets = document.targets
    is_target = [False, *[True] * (len(document.tokens) - 1)] if targets is None else targets.tolist()
    return shown_document(document.tokens.tolist(), is_target, tokenizer)
