"""What a part is asked, and where it computes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from persianmind.gpucheck.findings import NotApplicableError

if TYPE_CHECKING:
    import torch

SMALL_RANKS = 2


@dataclass(frozen=True, slots=True)
class PartSetting:
    """small: every part on the CPU and at tiny shapes, to show that the check itself works.

    folder: scratch of this part. limit_s: when it will be killed, from its start. options: what a part asks
    of its ranks.
    """

    small: bool
    folder: Path
    limit_s: float
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, tree: Mapping[str, Any]) -> Self:
        """From JSON as `as_json` writes it."""
        return cls(tree["small"], Path(tree["folder"]), tree["limit_s"], tree.get("options", {}))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "small": self.small,
            "folder": str(self.folder),
            "limit_s": self.limit_s,
            "options": dict(self.options),
        }

    @property
    def device(self) -> torch.device:
        """Where this process computes: the GPU of its local rank, or the CPU in a small check."""
        import torch

        return (
            torch.device("cpu")
            if self.small
            else torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        )

    @property
    def rank_count(self) -> int:
        """One per GPU; two on the CPU."""
        import torch

        return SMALL_RANKS if self.small else torch.cuda.device_count()


def require_ranks(setting: PartSetting, least: int) -> int:
    """The number of ranks.

    Raises:
        NotApplicableError: there are fewer GPUs than that.
    """
    count = setting.rank_count
    if count < least:
        raise NotApplicableError(f"needs {least} GPUs or more, and {count} is visible here")
    return count
