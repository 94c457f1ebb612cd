"""How the new embeddings fare: how often each token was trained on, and how far it went."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from persianmind.common.atomic import write_text
from persianmind.common.checksum import dump_checked_line
from persianmind.data.read.order import rank_samples
from persianmind.model.init import initial_embeddings
from persianmind.recipe import Recipe
from persianmind.run.evaluation_records import NewTokens
from persianmind.run.log import add_new_tokens, read_results
from persianmind.train.callbacks.base import Callback
from persianmind.train.callbacks.evaluate import EvaluateCallback
from persianmind.train.stages import StagePlan

if TYPE_CHECKING:
    from persianmind.train.context import RunContext

NEAREST = 3
MOVED = 0.01  # of the initial value's norm: less is rounding and weight decay
CHUNK = 512  # tokens whose neighbours are looked for at once
BEAT_SAMPLES = 64
logger = logging.getLogger(__name__)


class NewTokenCallback(Callback):
    """At the end of a stage; all ranks count the samples that they trained on, rank 0 writes."""

    name = "new_tokens"

    def __init__(self, recipe: Recipe, evaluate: EvaluateCallback) -> None:
        # Where base embeddings move as well, what new ones began as is not known any more.
        self.enabled = recipe.evaluate.new_tokens and recipe.vocab.train_embeddings == "new"
        self.min_seen = recipe.evaluate.min_seen
        self.evaluate = evaluate

    def end_stage(self, context: RunContext, plan: StagePlan) -> None:
        stage, table = plan.stage.name, context.engine.model.input_table
        if not self.enabled or not table.added_vocab or context.step != plan.last_step:
            return
        done = context.is_main and any(one.stage == stage for one in read_results(context.folder).new_tokens)
        if context.engine.max(int(done)):
            return
        seen_A = np.array(context.engine.sum_counts(self._count(context).tolist()))
        if not context.is_main:
            return
        pieces = _pieces(context)
        moved_A, norm_A = _moved(context, [ids for _, ids in pieces])
        nearest = _nearest(context)
        path = context.folder.new_tokens(stage)
        lines = [
            {"token": text, "id": table.base_vocab + i, "seen": int(seen_A[i]), "norm": float(norm_A[i]),
             "moved": float(moved_A[i]), "nearest": nearest[i]}
            for i, (text, _) in enumerate(pieces)
        ]  # fmt: skip
        write_text(path, "".join(dump_checked_line(line) + "\n" for line in lines))
        dead_A = (seen_A < self.min_seen) & (moved_A < MOVED)
        ratios = self.evaluate.new_ratios
        found = NewTokens(
            stage=stage,
            n=len(seen_A),
            seen=int((seen_A > 0).sum()),
            dead=int(dead_A.sum()),
            min_seen=self.min_seen,
            median_seen=float(np.median(seen_A)),
            moved=float(np.median(moved_A)),
            loss_ratio=None if ratios is None else ratios[0],
            token_ratio=None if ratios is None else ratios[1],
            file=str(path.relative_to(context.folder.path)),
        )
        add_new_tokens(context.folder, found)
        logger.info(
            f"new tokens after {stage}: {found.seen:,} of {found.n:,} were seen, {found.dead:,} are dead "
            f"(seen less than {self.min_seen} times, not moved); each: {path}"
        )

    def _count(self, context: RunContext) -> NDArray[np.int64]:
        """How often each new token stood in the samples of this rank, over all stages that are done."""
        from persianmind.train.loop import stage_data

        table = context.engine.model.input_table
        counts_A = np.zeros(table.added_vocab, dtype=np.int64)
        for plan in context.plans:
            if plan.last_step > context.step:
                break
            data = stage_data(context.recipe, plan, context.datasets)
            total = plan.steps * context.recipe.train.global_batch_size
            for place, sample in enumerate(
                rank_samples(0, total, context.ranks.rank, context.ranks.world_size)
            ):
                if place % BEAT_SAMPLES == 0:
                    context.on_progress()
                ids_L = data.sequence(sample).input_ids
                new_L = ids_L[ids_L >= table.base_vocab] - table.base_vocab
                counts_A += np.bincount(new_L, minlength=len(counts_A))
        return counts_A


def _pieces(context: RunContext) -> list[tuple[str, list[int]]]:
    """(text, the base ids that spelled it) of every new token, padding tokens among them."""
    from persianmind.vocab.expansion import load_expansion

    return [(piece.text, list(piece.base_ids)) for piece in load_expansion(context.folder.vocab).pieces]


def _moved(context: RunContext, pieces: list[list[int]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(distance from the initial value over its norm, norm now) of each new input embedding."""
    table = context.engine.model.input_table
    assert table.new_AD is not None
    generator = torch.Generator().manual_seed(context.recipe.seed)
    base_VD = table.base_VD.detach().cpu()
    first_AD = initial_embeddings(base_VD, pieces, context.recipe.vocab.initialise, generator).float()
    now_AD = table.new_AD.detach().cpu().float()
    distance_A = (now_AD - first_AD).norm(dim=1) / first_AD.norm(dim=1).clamp(min=1e-12)
    return distance_A.numpy(), now_AD.norm(dim=1).numpy()


def _nearest(context: RunContext) -> list[list[str]]:
    """The old tokens whose input embeddings lie nearest to each new one, by cosine."""
    from persianmind.tokenizer import FolderTokenizer

    table, tokenizer = context.engine.model.input_table, FolderTokenizer(context.folder.vocab)
    assert table.new_AD is not None
    base_VD = torch.nn.functional.normalize(table.base_VD.detach().float(), dim=1)
    found: list[list[str]] = []
    for start in range(0, table.added_vocab, CHUNK):
        context.on_progress()
        new_CD = torch.nn.functional.normalize(table.new_AD[start : start + CHUNK].detach().float(), dim=1)
        places = (new_CD @ base_VD.T).topk(NEAREST, dim=1).indices.cpu().tolist()
        found += [[tokenizer.token_text(one) or "" for one in row] for row in places]
    return found
