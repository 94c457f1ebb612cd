"""`launcher/train.py --dry-run`: everything up to step 1, shown and not kept.

What a run would do is done with its own code in a temporary folder, on as much text as that takes: the run
folder is not made, the cache of bases is not touched, and the folder is removed however this ends (but for
kill -9). Rank 0 does it; the other ranks have nothing to do.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.checks.all import check_resume_from, preflight
from persianmind.checks.device import check_device, has_gpu
from persianmind.checks.text import times_seen
from persianmind.common.log import print_text
from persianmind.engine.ranks import Ranks
from persianmind.engine.registry import backend
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import decided_recipe
from persianmind.train.dry_run_build import (
    DryRunSource,
    base_folder,
    learn_vocabulary,
    pack_beginning,
    shortened,
)
from persianmind.train.stopping import Stopping

if TYPE_CHECKING:
    from persianmind.tokenizer import FolderTokenizer
    from persianmind.train.run import RunRequest

logger = logging.getLogger(__name__)
FOLDER_PREFIX = "persianmind-dry-run-"
SHOWN_CHARACTERS = 1_500  # of a sequence


def show_dry_run(request: RunRequest, ranks: Ranks) -> None:
    """Shows what a run would begin with.

    Raises:
        PersianMindError: what would stop the run before step 1.
        RunInterruptedError: a signal; nothing is kept either.
    """
    if ranks.rank != 0:
        return
    preflight(request.recipe, request.engine_config, request.folder, ranks.world_size)
    check_resume_from(request.resume_from)
    engine = backend(request.engine)
    with (
        Stopping(engine.launcher_is_gone, kept="nothing of a dry run is kept"),
        tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as folder,
    ):
        _show(request, ranks, Path(folder))
    logger.info("dry run: done, nothing is kept; the same command without --dry-run trains")


def _show(request: RunRequest, ranks: Ranks, scratch: Path) -> None:
    from persianmind.estimate.describe import describe_run
    from persianmind.estimate.shapes import meta_model
    from persianmind.model.bases import read_config
    from persianmind.text.heldout import INDEX, write_held_out
    from persianmind.tokenizer import FolderTokenizer
    from persianmind.train.stages import plan_stages
    from persianmind.vocab.expansion import EXPANSION_FILE, load_expansion

    recipe, made = shortened(request.recipe), RunFolder(scratch / "run")
    logger.info(f"dry run of {recipe.name}: a run would write {request.folder}; all checks of a start passed")
    logger.info(f"device: {check_device(recipe)}")
    heldout = request.folder.heldout
    if not (heldout / INDEX).is_file():
        heldout = made.heldout
        write_held_out(recipe, heldout)
    base = base_folder(recipe.base, scratch)
    vocab = request.folder.vocab
    if (vocab / EXPANSION_FILE).is_file():
        logger.info(f"vocabulary: the run's own, {vocab}")
    else:
        vocab = made.vocab
        learn_vocabulary(recipe, base, vocab, heldout)
    tokenizer = FolderTokenizer(vocab)
    sources = [pack_beginning(recipe, one, vocab, made, heldout) for one in recipe.stage_packings()]
    for source in sources:
        _show_sequence(source, tokenizer)
    tokens = {source.packing.source: source.tokens for source in sources}
    _show_amounts(request.recipe, sources, tokens)
    counts = {source.packing.name: source.whole_sequences for source in sources}
    plans = plan_stages(request.recipe, counts)
    expansion = load_expansion(vocab)
    model = meta_model(request.recipe, read_config(base), expansion.base_vocab, expansion.added)
    stages = [(plan.stage, plan.steps) for plan in plans]
    for line in describe_run(request.recipe, stages, model, ranks.world_size):
        logger.info(line)
    logger.info(_memory_line(request, read_config(base), (expansion.base_vocab, expansion.added), ranks))


def _memory_line(
    request: RunRequest, config: Mapping[str, Any], vocabulary: tuple[int, int], ranks: Ranks
) -> str:
    """What a run would recompute on this rank's device, and whether it fits."""
    from persianmind.estimate.target import target_here
    from persianmind.train.recompute import memory_line, plan_on

    recipe = decided_recipe(request.recipe, request.folder)
    target = target_here(recipe, ranks.local_size, on_gpu=has_gpu())
    plan = plan_on(target, recipe, config, vocabulary, request.engine_config, ranks.world_size)
    return memory_line(plan.recipe, config, plan.peak.with_reserve, target.usable_bytes)


def _show_sequence(source: DryRunSource, tokenizer: FolderTokenizer) -> None:
    """The first packed sequence of a source, targets in brackets."""
    from persianmind.data.shown import CLOSE, OPEN, shown_documents

    documents = shown_documents(source.dataset, 0, tokenizer)
    tokens, targets = sum(one.tokens for one in documents), sum(one.targets for one in documents)
    logger.info(
        f"{source.packing.name}: first sequence: {len(documents)} documents, {tokens} tokens, {targets} of "
        f"them learnt, in {OPEN} {CLOSE}"
    )
    left = SHOWN_CHARACTERS
    for one in documents:
        text = one.marked
        more = f" ... ({len(text) - left:,} more characters)" if len(text) > left else ""
        print_text("  | " + text[:left].replace("\n", "\n  | ") + more)
        left -= len(text)
        if left <= 0:
            break


def _show_amounts(recipe: Recipe, sources: list[DryRunSource], tokens: dict[str, int | None]) -> None:
    passes = times_seen(recipe, tokens)
    for name, source in {one.packing.source: one for one in sources}.items():
        seen = passes[name]
        if source.tokens is None or seen is None:
            logger.info(f"{name}: its size is not known from here; stages in epochs are longer")
            continue
        about = "" if source.is_whole else "about "
        logger.info(f"{name}: {about}{source.tokens:,} tokens, seen {seen:.3g} times over all stages")
