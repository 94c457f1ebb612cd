"""The base of every record that is written into a run folder or beside it."""

from __future__ import annotations

from pydantic import ConfigDict

from persianmind.common.bounded import BoundedModel


class RunRecord(BoundedModel):
    """Frozen, its numbers within bounds; keys that this version does not know are ignored."""

    model_config = ConfigDict(extra="ignore")
