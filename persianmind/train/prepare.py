"""Everything a run needs before the process group exists: held-out text, base, vocabulary, and the data that
step 1 needs whole.

One process (rank 0) does it; the others wait for `prepared.json`. No collective is open meanwhile, so no
ten-minute timeout of a collective can hit a long preparation; preparation.py watches over both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from persianmind.common.checksum import read_checked, write_checked
from persianmind.common.errors import DamagedFileError, RunFolderError, RunInterruptedError
from persianmind.common.poll import wait_until
from persianmind.recipe import Packing, Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.records import Prepared

if TYPE_CHECKING:
    from persianmind.data.build.service import BackgroundBuild
    from persianmind.data.build.source import SourceJob
    from persianmind.data.manifest import Fingerprints

logger = logging.getLogger(__name__)


def prepare(
    recipe: Recipe,
    folder: RunFolder,
    mark: Callable[[str, str], None],
    check_sources: Callable[[Mapping[str, Mapping[str, str]]], None] = lambda fingerprints: None,
) -> Prepared:
    """Makes what is missing in the run folder and returns at once what is there already.

    Args:
        mark: called with what is being prepared, one word ("heldout", "base", "vocabulary", "data"), and the
            same for people.
        check_sources: called with what the token shards of each packing depend on, before any are built.

    Raises:
        PersianMindError: whatever the packages below raise, before anything half-made is left behind.
    """
    from persianmind.data.build.priority import needed_whole
    from persianmind.data.build.source import build_fingerprints, refuse_other_builds
    from persianmind.model.bases import base_fingerprint, read_config, resolve_base
    from persianmind.text.heldout import write_held_out
    from persianmind.tokenizer import FolderTokenizer
    from persianmind.vocab.expansion import EXPANSION_FILE, load_expansion

    _tell_left_out(recipe)
    _begin(mark, "heldout", "held-out text")
    write_held_out(recipe, folder.heldout)
    _begin(mark, "base", "base model")
    base = resolve_base(recipe.base)
    recipe.adapter.layer_indices(int(read_config(base)["num_hidden_layers"]))  # of one that was not here
    if not (folder.vocab / EXPANSION_FILE).is_file():
        _begin(mark, "vocabulary", f"vocabulary of {recipe.vocab.new_tokens} new tokens")
        _build_vocabulary(recipe, folder, base)
    expansion = load_expansion(folder.vocab)  # first: a damaged tokenizer is named, not opened
    tokenizer = FolderTokenizer(folder.vocab)
    jobs = source_jobs(recipe, folder, recipe.stage_packings())
    fingerprints = {job.packing: build_fingerprints(job, tokenizer) for job in jobs}
    check_sources({name: one.model_dump() for name, one in fingerprints.items()})
    refuse_other_builds({job.out: fingerprints[job.packing] for job in jobs})
    whole = needed_whole(recipe)
    sequences: dict[str, int | None] = {}
    for job in jobs:
        if job.packing in whole:
            _begin(mark, "data", f"data of {job.packing}")
        sequences[job.packing] = _sequences(job, fingerprints[job.packing], now=job.packing in whole)
    prepared = Prepared(
        base_fingerprint=base_fingerprint(base),
        tokenizer_fingerprint=expansion.fingerprint,
        sequences_by_source=sequences,
        fingerprints={name: one.model_dump() for name, one in fingerprints.items()},
    )
    if prepared.to_build:
        names = ", ".join(prepared.to_build)
        logger.info("prepare: %s: built while training runs, see %s", names, folder.builder_log)
    write_checked(folder.prepared, prepared.model_dump(mode="json"))
    return prepared


def source_jobs(recipe: Recipe, folder: RunFolder, packings: Iterable[Packing]) -> list[SourceJob]:
    """The builds of a run's token shards."""
    from persianmind.data.build.source import source_job

    return [
        source_job(recipe, one, tokenizer=folder.vocab, out=folder.shards(one.name), heldout=folder.heldout)
        for one in packings
    ]


def background_build(recipe: Recipe, folder: RunFolder, prepared: Prepared) -> BackgroundBuild:
    """The process that builds beside training what preparation left; a context manager."""
    from persianmind.data.build.priority import build_order
    from persianmind.data.build.service import BackgroundBuild

    to_build = [one for one in recipe.stage_packings() if one.name in prepared.to_build]
    jobs = source_jobs(recipe, folder, to_build)
    return BackgroundBuild(jobs, build_order(recipe), folder.builder_log)


def wait_until_prepared(
    folder: RunFolder,
    stop_requested: Callable[[], bool],
    check_rank_0: Callable[[], None] = lambda: None,
) -> None:
    """Blocks until rank 0 has prepared.

    Args:
        check_rank_0: called while waiting; what it raises ends the wait.

    Raises:
        RunInterruptedError: `stop_requested` says so.
    """

    def check() -> None:
        check_rank_0()
        if stop_requested():
            raise RunInterruptedError(
                "stopped while another process prepared the run; run the same command to go on"
            )

    wait_until(folder.prepared.is_file, while_waiting=check)


def read_prepared(folder: RunFolder) -> Prepared:
    """What `prepare` wrote.

    Raises:
        RunFolderError: it is missing or damaged; the same command makes it again.
    """
    try:
        return Prepared.model_validate(read_checked(folder.prepared))
    except (FileNotFoundError, DamagedFileError, ValidationError):
        raise RunFolderError(
            f"{folder.prepared} is missing or damaged; delete it and run the same command again"
        ) from None


def _tell_left_out(recipe: Recipe) -> None:
    """Which files of its sources are not read: nothing is passed over in silence."""
    from persianmind.data.check_lines import files_left_out
    from persianmind.text.sources.locate import list_source

    for name, source in recipe.sources.items():
        for line in files_left_out(f"sources.{name}", list_source(name, source).left_out):
            logger.info("prepare: %s", line)


def _begin(mark: Callable[[str, str], None], word: str, what: str) -> None:
    logger.info("prepare: %s", what)
    mark(word, what)


def _build_vocabulary(recipe: Recipe, folder: RunFolder, base: Path) -> None:
    from persianmind.language import vocabulary_profile
    from persianmind.text.corpus import training_texts
    from persianmind.text.heldout import held_out_fingerprints
    from persianmind.text.spec import source_specs
    from persianmind.vocab.build import build_vocab

    specs = source_specs(recipe, recipe.vocabulary_sources())
    evaluated = held_out_fingerprints(folder.heldout if recipe.heldout.sources else None)
    build_vocab(
        base,
        lambda: training_texts(specs, evaluated),
        folder.vocab,
        new_tokens=recipe.vocab.new_tokens,
        train_size=recipe.vocab.train_size,
        pad_token=recipe.vocab.pad_token,
        profile=vocabulary_profile(recipe),
    )


def _sequences(job: SourceJob, fingerprints: Fingerprints, *, now: bool) -> int | None:
    """The sequences of one source, built `now` if step 1 needs all of them; None: left for the builder."""
    from persianmind.data.build.builder import build_source
    from persianmind.data.build.source import finished_build
    from persianmind.data.read.incremental import clear_failure

    clear_failure(job.out)
    if now:
        return build_source(job).sequences
    finished = finished_build(job.out, fingerprints)
    return None if finished is None else finished.sequences
