"""Whether every operation of a step gives the same bits each time, decided once per run.

On a GPU some backward kernels add in whatever order their threads finish. torch's strict mode takes slower
kernels that do not, and raises where an operation has none: one micro-batch tells. What came of it is written
into the run and kept on resume, or losses before and after would differ in kind.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import torch

from persianmind.common.errors import MachineError
from persianmind.model.documents import model_inputs
from persianmind.run.records import Determinism

if TYPE_CHECKING:
    from persianmind.checkpoint.group import RankGroup
    from persianmind.engine.base import Batch
    from persianmind.model.adapted import AdaptedModel

logger = logging.getLogger(__name__)
_REFUSAL = re.compile(r"(\S+) does not have a deterministic implementation")


def choose_determinism(
    asked: bool | str, model: AdaptedModel, batch: Batch, device: torch.device, group: RankGroup
) -> Determinism:
    """Tries a micro-batch in strict mode where `asked` is "auto" or true; all ranks together, one answer.

    Raises:
        MachineError: strict mode was asked for, and an operation refuses it.
    """
    if asked is False:
        return Determinism(strict=False)
    found = group.all_gather(refused_operation(model, batch, device))
    refused = next((operation for operation in found if operation), None)
    if asked is True and refused:
        raise MachineError(
            f"train.deterministic=true: {refused} has no deterministic implementation on {device.type}; "
            "train.deterministic=auto goes on without"
        )
    return Determinism(strict=refused is None, refused=refused)


def refused_operation(model: AdaptedModel, batch: Batch, device: torch.device) -> str | None:
    """The operation that a micro-batch in strict mode fails at; None where it runs through."""
    set_strict(True)
    model.train()
    try:
        model(**model_inputs(batch, device)).backward()
    except RuntimeError as error:
        if (match := _REFUSAL.search(str(error))) is None:
            raise
        return match[1]
    finally:
        set_strict(False)
        for value in model.trained().values():
            value.grad = None
    return None


def set_strict(strict: bool) -> None:
    """Switches torch's strict mode, without its filling of every new tensor: we read none unwritten."""
    torch.use_deterministic_algorithms(strict)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def apply_determinism(chosen: Determinism) -> None:
    """Sets the mode for the rest of the process and says so."""
    set_strict(chosen.strict)
    if chosen.strict:
        logger.info("deterministic: strict; a resumed run repeats every loss to the bit")
    elif chosen.refused:
        logger.warning(
            f"deterministic: {chosen.refused} has no deterministic implementation here; a resumed run "
            "repeats the samples, its losses agree to rounding"
        )
    else:
        logger.info("deterministic: off; a resumed run repeats the samples, its losses agree to rounding")
