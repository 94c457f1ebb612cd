"""The base of every record that is written into a run folder or beside it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RunRecord(BaseModel):
    """Frozen; keys that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")
