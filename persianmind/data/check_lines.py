"""What the data doctor found, for people: a table of sources, then each reason with places, samples and a
fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from persianmind.data.check import Finding
from persianmind.recipe import Source
from persianmind.text.advice import advice
from persianmind.text.sources.listing import LeftOut

SHOWN_SAMPLES = 3
SHOWN_FILES = 5
HEADER = ["source", "records", "documents", "characters", "rejected", "dropped", "held out", "verdict"]


def table(findings: Mapping[str, Finding]) -> list[list[str]]:
    """A row per source."""
    return [
        [
            name,
            f"{one.records_read:,}",
            f"{one.documents:,}",
            f"{one.characters:,}",
            f"{sum(one.rejected.values()):,}",
            f"{sum(one.dropped.values()):,}",
            f"{one.held_out:,}",
            one.verdict,
        ]
        for name, one in findings.items()
    ]


def reasons(name: str, finding: Finding, source: Source) -> Iterator[str]:
    """Lines about one source: each reason whole, how often, what to do, and the first places of it."""
    for kind, counts in (("rejected", finding.rejected), ("dropped", finding.dropped)):
        for reason, count in sorted(counts.items(), key=lambda one: -one[1]):
            samples = finding.samples.get(reason, [])
            told = advice(reason, source, next((one.fields for one in samples if one.fields), None))
            yield f"{name}: {kind} {count:,}: {reason}" + (f" - {told}" if told else "")
            for one in samples[:SHOWN_SAMPLES]:
                has = f" (fields: {', '.join(one.fields)})" if one.fields else ""
                yield f"    {one.place}{has}: {_one_line(one.sample)}"
    for left, count in sorted(finding.left_out.items()):
        yield f"{name}: left out of {count:,} dialogues that are kept: {left}"
    for damaged in finding.damage.files:
        yield f"{name}: the rest of {damaged} could not be read"
    yield from files_left_out(name, finding.files_left_out)


def files_left_out(name: str, left_out: Sequence[LeftOut]) -> Iterator[str]:
    """A line per reason for which files of a source are not read: how many, of what size, the first few."""
    by_reason: dict[str, list[LeftOut]] = {}
    for one in left_out:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, files in by_reason.items():
        size = sum(one.size_bytes or 0 for one in files)
        shown = ", ".join(_one_line(one.path) for one in files[:SHOWN_FILES])
        more = f" and {len(files) - SHOWN_FILES:,} more" if len(files) > SHOWN_FILES else ""
        yield f"{name}: not read: {shown}{more} ({size:,} bytes): {reason}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
