"""What is measured after a stage, and on the way through it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from persianmind.recipe.section import Count, Name, Ratio, Section


class Forgetting(Section):
    """A guard in training: every `every_steps` the held-out text of `language` is scored, at most
    `max_documents` of it. Once its bits per byte lie above the base's by more than `max_increase`, and by
    more than the noise of so many documents, the run warns, or stops, as `action` says. Scoring takes at most
    `max_time_ratio` of the time: a check that would take more is left out."""

    language: Name = "en"
    every_steps: Count = 50
    max_documents: Count = 64
    max_increase: Ratio = 0.02
    action: Literal["warn", "stop"] = "warn"
    max_time_ratio: Ratio = 0.02


class Evaluate(Section):
    """What is measured after every stage.

    `prompts`: asked of the base, after every stage and of the export, in the form that dialogues are trained
    in; the answers go into results.json. `max_new_tokens`: of an answer. `every_steps`: held-out text is
    scored within stages as well. `suites`: tests, as `persianmind evaluate --suite` takes them, of the base
    and after every stage (`suites_within_stages`: at `every_steps` too), `limit` items of each task, their
    files in the folder `data`. `best_metric`: a held-out language, or SUITE/TASK/METRIC; the checkpoint that
    has its best value is kept whatever else is removed. `patience`: a stage ends once this many of its
    measurements did not better that metric by the ratio `min_gain`. `forgetting`: a guard for a language that
    the base knows. `new_tokens`: how the new embeddings fare at the end of each stage; one that was seen less
    than `min_seen` times and did not move is dead.
    """

    prompts: list[str] = Field(default_factory=list)
    max_new_tokens: Count = 64
    every_steps: Count | None = None
    suites: list[str] = Field(default_factory=list)
    suites_within_stages: bool = False
    data: str = "eval-data"
    limit: Count | None = None
    best_metric: str | None = None
    patience: Count | None = None
    min_gain: Ratio = 0.0
    forgetting: Forgetting | None = None
    new_tokens: bool = True
    min_seen: Count = 10
