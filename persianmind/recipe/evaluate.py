"""What is measured after a stage."""

from __future__ import annotations

from pydantic import Field

from persianmind.recipe.section import Count, Section


class Evaluate(Section):
    """What is measured after every stage.

    `prompts`: asked of the base, after every stage and of the export, in the form that dialogues are trained
    in; the answers go into results.json. `max_new_tokens`: of an answer.
    """

    prompts: list[str] = Field(default_factory=list)
    max_new_tokens: Count = 64
