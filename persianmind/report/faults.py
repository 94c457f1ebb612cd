"""What went wrong on the way: starts of the run, steps done again, steps that moved no weight."""

from __future__ import annotations

from dataclasses import dataclass

from persianmind.report.read import RunFiles
from persianmind.report.view import Facts, Table, count, plain

MAX_LINES = 12


@dataclass(frozen=True, slots=True)
class Faults:
    """facts: counts. starts: one line for each start on each node, None where there was one alone. lines:
    sentences about steps that moved no weight and about the GPUs."""

    facts: Facts
    starts: Table | None
    lines: list[str]


def faults(run: RunFiles) -> Faults:
    """Crashes, restarts and skipped steps."""
    attempts = run.ledger.attempts
    skipped = [step for step in run.steps if step.skipped]
    facts = [
        ("starts of the run", count(run_starts(run))),
        ("steps done again", count(run.steps_done_again)),
        ("steps that moved no weight", count(len(skipped))),
    ]
    body = [
        [
            plain(attempt.started),
            plain(attempt.node),
            plain("the beginning" if attempt.resumed_step is None else f"step {attempt.resumed_step:,}"),
            plain(attempt.stopped or "killed"),
        ]
        for attempt in attempts
    ]
    lines = [f"step {step.step:,}: skipped, {step.skip_reason or 'no reason recorded'}" for step in skipped]
    lines += [f"{a.node}, {note.time}: {note.message}" for a in attempts for note in a.xids]
    shown = lines[:MAX_LINES] + ([f"and {len(lines) - MAX_LINES:,} more"] if len(lines) > MAX_LINES else [])
    starts = Table(["started", "node", "from", "ended"], body[-MAX_LINES:], numeric=False)
    return Faults(facts, starts if len(body) > 1 else None, shown)


def run_starts(run: RunFiles) -> int:
    """How often the run was started: of the node that has the most: a node may join late or be lost."""
    nodes = [attempt.node for attempt in run.ledger.attempts]
    return max(map(nodes.count, nodes), default=0)
