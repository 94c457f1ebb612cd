"""Families of tests, one class each (base.py)."""

from __future__ import annotations

from typing import Any

from persianmind.evaluate.families.base import NotPossibleError, Numbered, Record, TaskContext, TaskFamily
from persianmind.evaluate.families.choice import MultipleChoice
from persianmind.evaluate.families.health import Health
from persianmind.evaluate.families.similarity import Similarity
from persianmind.evaluate.families.text import Text
from persianmind.evaluate.families.translation import Translation

__all__ = ["FAMILIES", "NotPossibleError", "Numbered", "Record", "TaskContext", "TaskFamily"]

FAMILIES: dict[str, TaskFamily[Any]] = {
    one.name: one for one in (Text(), MultipleChoice(), Translation(), Similarity(), Health())
}
