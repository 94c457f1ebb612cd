"""How long what a run does beside its steps takes: the part of results.json that an end is told from."""

from __future__ import annotations

from persianmind.run.record import RunRecord


class BesideSteps(RunRecord):
    """Seconds of what a run does beside its steps, None where it is not known.

    stage_end_s: of the end of a stage: held-out scores, suites, new tokens, samples. within_s: of a
    measurement at `evaluate.every_steps`. export_s: from the last stage to the end of the run.
    """

    stage_end_s: float | None = None
    within_s: float | None = None
    export_s: float | None = None
