"""The base of every section of a recipe, and the types its keys share."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from persianmind.common.bounded import BoundedModel

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
MOST = 1 << 24
Dimension = Annotated[int, Field(ge=1, le=MOST)]  # of a tensor
SequenceLength = Annotated[int, Field(ge=16, le=MOST)]


class Section(BoundedModel):
    """Base of every section: frozen, closed against unknown keys, its numbers within bounds."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
