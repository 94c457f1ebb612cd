"""Work that a crash threw away: steps that a later attempt did again.

An optimizer step beyond the last checkpoint is lost when the run dies, and its energy was spent for nothing.
An evaluation or an export is lost when a later attempt does the same one again. Preparation is not counted as
lost: finished token shards stay, so a second attempt goes on where the first stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from persianmind.energy.ledger import Attempt
from persianmind.run.energy_records import EnergySample
from persianmind.run.records import Phase

# Every start of a run goes through these; what they made is kept, so doing them again is no lost work.
KEPT_PHASES = frozenset({Phase.PREPARE, Phase.START})

Position = tuple[int | None, int]  # (number of the training stage where known, step)


def lost_ratios(attempts: Sequence[Attempt]) -> dict[tuple[str, str, int], float]:
    """The lost part, above 0 and up to 1, of each sample that lost any.

    The key is (node, attempt, index of the sample in its attempt). A sample over several steps of which some
    are lost counts in proportion to the steps.
    """
    order = _stage_order(attempts)
    lost: dict[tuple[str, str, int], float] = {}
    for attempt in attempts:
        later = [other for other in attempts if _is_later(other, attempt)]
        begins = [begin for other in later if (begin := _begin(other, order)) is not None]
        redone = {(s.phase, s.stage) for other in later for s in other.samples if s.phase not in KEPT_PHASES}
        for index, sample in enumerate(attempt.samples):
            if sample.phase is Phase.TRAIN:
                ratio = max((_lost_steps(sample, begin, order) for begin in begins), default=0.0)
            else:
                ratio = 1.0 if (sample.phase, sample.stage) in redone else 0.0
            if ratio > 0:
                lost[attempt.node, attempt.name, index] = ratio
    return lost


def _lost_steps(sample: EnergySample, begin: Position, order: dict[str, int]) -> float:
    """The part of a training sample's steps at or after `begin`."""
    begin_stage, begin_step = begin
    stage = order[sample.stage]
    if begin_stage is not None and stage != begin_stage:
        return 1.0 if stage > begin_stage else 0.0
    first, last = min(sample.step_from, sample.step), sample.step
    steps = last - max(first, begin_step) + 1
    return min(1.0, max(0.0, steps / (last - first + 1)))


def _begin(attempt: Attempt, order: dict[str, int]) -> Position | None:
    """The first step that this attempt did (again): where it began to train, or after what it resumed."""
    first = attempt.first_training()
    if first is not None:
        return (order[first.stage], first.step_from)
    return None if attempt.resumed_step is None else (None, attempt.resumed_step + 1)


def _stage_order(attempts: Sequence[Attempt]) -> dict[str, int]:
    """Training stages, numbered as they came."""
    names: dict[str, None] = {}
    for attempt in sorted(attempts, key=lambda item: (item.number, item.started)):
        names.update(dict.fromkeys(s.stage for s in attempt.samples if s.phase is Phase.TRAIN))
    return {name: number for number, name in enumerate(names)}


def _is_later(other: Attempt, attempt: Attempt) -> bool:
    """On one node the order of the file decides, whatever the clock said; between nodes, the wall clock."""
    if other.node == attempt.node:
        return other.number > attempt.number
    ended = attempt.samples[-1].time if attempt.samples else attempt.started
    return other.started > ended
