"""The data that a checkpoint's steps were trained on, and whether they are still what lies there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persianmind.checkpoint.group import RankGroup
from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.checkpoint.store import CheckpointStore
from persianmind.common.checksum import hash_text
from persianmind.common.errors import ChangedDataError
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import update_results
from persianmind.run.records import DataChange, DataUse

if TYPE_CHECKING:
    from persianmind.data.manifest import ShardEntry
    from persianmind.data.read.dataset import TokenDataset
    from persianmind.train.context import RunContext
    from persianmind.train.stages import StagePlan

logger = logging.getLogger(__name__)


def data_in_use(context: RunContext) -> dict[str, DataUse]:
    """What can be read of each packing that steps were trained on, by its name. Whatever any rank has
    consumed is in it: a step begins once all ranks see its sequences."""
    found = {}
    for name in _packings(context.recipe, [one for one in context.plans if one.first_step < context.step]):
        dataset = context.datasets[name]
        found[name] = DataUse(
            fingerprints=context.prepared.fingerprints[name],
            shards=len(dataset.shards),
            hash=_hash(dataset.shards),
            whole=dataset.num_sequences is not None,
        )
    return found


def newest_data_in_use(folder: RunFolder) -> tuple[int, dict[str, DataUse]]:
    """(step, `data_in_use`) of the newest checkpoint whose manifest is sound; (0, {}) without one."""
    found = CheckpointStore(folder.checkpoints, keep_last=1, keep_every_steps=None).readable()
    return (found[0].step, _recorded(found[0].metadata)) if found else (0, {})


def refuse_other_sources(
    step: int, trained: Mapping[str, DataUse], fingerprints: Mapping[str, Mapping[str, str]]
) -> None:
    """Before anything is built: what the token shards in use depend on must be what it was.

    Args:
        step: of the checkpoint that `trained` is of.
        fingerprints: what they depend on now, by the name of a packing.

    Raises:
        ChangedDataError: it is not.
    """
    _refuse(
        [
            DataChange(source=name, step=step, what=what)
            for name, use in trained.items()
            if name in fingerprints and (what := _other_fingerprints(use, fingerprints[name]))
        ]
    )


def compare_data(
    context: RunContext, checkpoint: StoredCheckpoint, group: RankGroup, *, accept: bool
) -> None:
    """Holds the data against those that the checkpoint's steps were trained on; all ranks together.

    Token shards that were deleted are waited for while they are built again, where a stage still needs them.
    accept: whether what differs is taken, and noted in `context.data_changes` and results.json.

    Raises:
        ChangedDataError: something differs.
        BuildFailedError: what is waited for will not come.
    """
    trained = _recorded(checkpoint.metadata)
    coming = _packings(context.recipe, [one for one in context.plans if one.last_step > checkpoint.step])
    for name in trained:
        if name in coming:
            context.datasets[name].wait_for_shards(trained[name].shards, whole=trained[name].whole)
    changes = [
        DataChange(source=name, step=checkpoint.step, what=what)
        for name, use in trained.items()
        if (what := _difference(use, context.prepared.fingerprints[name], context.datasets[name]))
    ]
    agreed = group.all_gather([one.model_dump() for one in changes])[0]  # files reach nodes at their own time
    changes = [DataChange.model_validate(one) for one in agreed]
    before = [DataChange.model_validate(one) for one in checkpoint.metadata.get("data_changes", [])]
    context.data_changes = [*before, *changes]
    if not changes:
        return
    if not accept:
        _refuse(changes)
    logger.warning(f"going on over other data from step {checkpoint.step + 1} on: {_told(changes)}")
    if context.is_main:
        update_results(context.folder, data_changes=context.data_changes)


def _packings(recipe: Recipe, plans: Sequence[StagePlan]) -> list[str]:
    """The names of what these stages read."""
    read = [recipe.packing(name, plan.stage).name for plan in plans for name in plan.stage.sources]
    return list(dict.fromkeys(read))


def _refuse(changes: Sequence[DataChange]) -> None:
    if changes:
        raise ChangedDataError(
            f"{_told(changes)}, since the run was trained on it up to step {changes[0].step}; restore it, "
            "add --accept-changed-data to go on over the data as they are now, or give another --output"
        )


def _told(changes: Sequence[DataChange]) -> str:
    return "; ".join(f"sources.{one.source}: other {one.what}" for one in changes)


def _difference(use: DataUse, fingerprints: Mapping[str, str], dataset: TokenDataset) -> str:
    """What is other than it was; "" where nothing is."""
    if what := _other_fingerprints(use, fingerprints):
        return what
    known, is_whole = len(dataset.shards), dataset.num_sequences is not None
    if known < use.shards and not is_whole:
        return ""  # being built again, for no stage that is still to come
    grown = use.whole and is_whole and known != use.shards
    return "token shards" if grown or _hash(dataset.shards[: use.shards]) != use.hash else ""


def _other_fingerprints(use: DataUse, fingerprints: Mapping[str, str]) -> str:
    return " and ".join(name for name, value in use.fingerprints.items() if fingerprints[name] != value)


def _recorded(metadata: Mapping[str, Any]) -> dict[str, DataUse]:
    return {name: DataUse.model_validate(use) for name, use in metadata.get("data", {}).items()}


def _hash(shards: Sequence[ShardEntry]) -> str:
    return hash_text(*(shard.hash for shard in shards))
