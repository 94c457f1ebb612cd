"""The guard against forgetting: a language that the base knows, held against the base while training goes
on."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from persianmind.common.checksum import read_checked, write_checked
from persianmind.common.errors import DamagedFileError, ForgettingError
from persianmind.evaluate.stats import bootstrap_ratio
from persianmind.evaluate.text import Floats, HeldOutSequences, held_out_sequences
from persianmind.model.bases import resolve_base
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase
from persianmind.text.heldout import read_held_out
from persianmind.train.callbacks.base import Callback
from persianmind.train.callbacks.evaluate import score_language

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

RESTORE = (
    "the base can be scored before step 1 alone: restore it, or take evaluate.forgetting out of the recipe"
)
logger = logging.getLogger(__name__)


class ForgettingCallback(Callback):
    """Scores some documents of one language every N steps, and compares each with itself under the base.

    base_nats_N: of these documents under the untouched base. spent_s: of this start, on scoring.
    """

    name = "forgetting"

    def __init__(self, recipe: Recipe) -> None:
        self.options = recipe.evaluate.forgetting
        self.base_nats_N: Floats | None = None
        self.held_out: HeldOutSequences | None = None
        self.spent_s = self.last_s = 0.0
        self.started_s = time.monotonic()

    def start(self, context: RunContext) -> None:
        """The base's own scores: made before step 1, read again by a run that goes on."""
        if self.options is None:
            return
        documents = read_held_out(context.folder.heldout, self.options.language)
        texts = [document.text for document in documents[: self.options.max_documents]]
        seq_len = context.recipe.data.seq_len
        path = context.folder.base_documents(self.options.language)
        if context.step == 0:
            own = held_out_sequences(texts, resolve_base(context.recipe.base), seq_len)
            nats = score_language(context, own, base_vocab_only=True).nats_N.tolist()
            if context.is_main:
                write_checked(path, {"language": self.options.language, "nats": nats})
        else:
            nats = read_base_documents(context.folder, self.options.language)
        self.base_nats_N = np.array(nats)
        self.held_out = held_out_sequences(texts, context.folder.vocab, seq_len)
        self.started_s = time.monotonic()

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        """Raises ForgettingError, on all ranks, where the bound is crossed and the recipe says stop."""
        if self.options is None or context.step % self.options.every_steps:
            return
        if not context.engine.max(int(context.is_main and self._in_time())):
            return
        context.mark(Phase.EVALUATE, context.plan.stage.name)
        started_s = time.monotonic()
        increase, low = self._increase(context)
        self.last_s = time.monotonic() - started_s
        self.spent_s += self.last_s
        text = (
            f"{self.options.language} bits per byte {increase:+.2%} against the base at step {context.step}"
        )
        if increase <= self.options.max_increase or low <= self.options.max_increase:
            logger.info(f"forgetting: {text}")
            return
        text += f" (at least {low:+.2%} at 95%), more than the {self.options.max_increase:.1%} allowed"
        if self.options.action == "warn":
            if context.is_main:
                logger.warning(f"forgetting: {text}; more {self.options.language} in the stage keeps it")
            return
        for callback in context.callbacks:
            callback.interrupt(context)
        raise ForgettingError(
            f"{text}; stopped and saved: set evaluate.forgetting.action=warn and run the same command to go "
            f"on, or begin another --output with more {self.options.language} in the stage, or a lower "
            "learning rate"
        )

    def _in_time(self) -> bool:
        """Whether one more check stays within the part of the time that it may take."""
        assert self.options is not None
        elapsed_s = time.monotonic() - self.started_s
        return self.spent_s + self.last_s <= self.options.max_time_ratio * elapsed_s or not self.spent_s

    def _increase(self, context: RunContext) -> tuple[float, float]:
        """(relative increase, lower end of its interval), over the documents in pairs."""
        assert self.held_out is not None and self.base_nats_N is not None
        nats_N = score_language(context, self.held_out).nats_N
        increase = float(nats_N.sum() / self.base_nats_N.sum()) - 1
        interval = bootstrap_ratio(nats_N - self.base_nats_N, self.base_nats_N)
        return increase, increase if interval.low is None else interval.low


def read_base_documents(folder: RunFolder, language: str) -> list[float]:
    """The loss of each document under the untouched base, nats.

    Raises:
        DamagedFileError: it is missing or not as it was written.
    """
    path = folder.base_documents(language)
    try:
        nats: list[float] = read_checked(path, RESTORE)["nats"]
    except FileNotFoundError:
        raise DamagedFileError(f"{path} is missing; {RESTORE}") from None
    return nats
