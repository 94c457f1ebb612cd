"""What the data doctor found, for people: a table of sources, then each reason with places, samples and a
fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from persianmind.data.check import Finding
from persianmind.recipe import Source
from persianmind.text.advice import advice

SHOWN_SAMPLES = 3
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
                yield f"    {one.place}{has}: {_printable(one.sample)}"
    for left, count in sorted(finding.left_out.items()):
        yield f"{name}: left out of {count:,} dialogues that are kept: {left}"
    for damaged in finding.damaged_files:
        yield f"{name}: the rest of {damaged} could not be read"


def _printable(text: str) -> str:
    """On one line; what would steer a terminal or turn its direction is written as an escape."""
    collapsed = " ".join(text.split())
    return "".join(one if one.isprintable() or one == "\u200c" else f"\\u{ord(one):04x}" for one in collapsed)
