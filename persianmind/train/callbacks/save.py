"""Checkpoints of a run: saved beside training after a snapshot, and taken up again."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from persianmind.checkpoint.background import BackgroundSaver
from persianmind.checkpoint.group import together
from persianmind.checkpoint.manifest import StoredCheckpoint, is_checkpoint
from persianmind.checkpoint.reading import load_tensors
from persianmind.checkpoint.store import CheckpointStore
from persianmind.checkpoint.verify import examine_checkpoint
from persianmind.common.checksum import hash_text
from persianmind.common.errors import ChangedDataError, CheckpointError, DataError
from persianmind.data.read.recheck import ShardRecheck
from persianmind.engine.ranks import TorchGroup, collective_timeout_s
from persianmind.estimate.memory import checkpoint_bytes
from persianmind.run.folder import RunFolder
from persianmind.run.identity import recipe_fingerprint
from persianmind.run.records import RunMetadata
from persianmind.train.callbacks.base import Callback
from persianmind.train.consumed import data_in_use

if TYPE_CHECKING:
    from persianmind.train.context import RunContext, StepOutcome

PACKAGES = ("torch", "deepspeed", "transformers", "peft", "tokenizers", "persianmind")
logger = logging.getLogger(__name__)


def package_versions() -> dict[str, str]:
    """The versions a checkpoint and results.json record."""
    return {name: version(name) for name in PACKAGES}


class SaveCallback(Callback):
    """Saves at every `checkpoint.every_steps`, at the end of a stage and before a stop; restores. All ranks
    together."""

    name = "save"

    def __init__(self, context: RunContext) -> None:
        recipe = context.recipe
        self.every_steps = recipe.checkpoint.every_steps
        self.saved_step = 0
        self.identity = {
            "recipe_fingerprint": recipe_fingerprint(recipe),
            "base_fingerprint": context.prepared.base_fingerprint,
            "tokenizer_fingerprint": context.prepared.tokenizer_fingerprint,
        }
        self.store = CheckpointStore(
            context.folder.checkpoints,
            keep_last=recipe.checkpoint.keep_last,
            keep_every_steps=recipe.checkpoint.keep_every_steps,
            on_phase=lambda _: context.on_progress(),
        )
        self.group = TorchGroup(context.ranks)
        self.recheck = ShardRecheck(context.datasets.values())
        # The background thread talks on a process group of its own, beside the gradients' one.
        timeout_s = collective_timeout_s(recipe.train.hang_timeout_s)
        self.saver = BackgroundSaver(self.store, TorchGroup(context.ranks, own=True, timeout_s=timeout_s))

    def start(self, context: RunContext) -> None:
        self.saved_step = context.step

    def after_step(self, context: RunContext, outcome: StepOutcome) -> None:
        stops = bool(outcome.result.stop_level)
        if stops or context.at_stage_end or context.step % self.every_steps == 0:
            self._save(context)

    def end_stage(self, context: RunContext, plan: object) -> None:
        self.saver.finish()

    def interrupt(self, context: RunContext) -> None:
        if context.step != self.saved_step:
            self._save(context)
        self.saver.finish()

    def keep(self, context: RunContext) -> None:
        """The checkpoint of this step stays, whatever else is removed; it is saved where it was not. All
        ranks together."""
        if self.saved_step != context.step:
            self._save(context)
        self.store.keep_step = context.step

    def _save(self, context: RunContext) -> None:
        """Snapshots now and writes while training goes on; waits for the save before it, if one runs.

        Raises:
            CheckpointError: the save before failed on some rank; older checkpoints are intact.
            ChangedDataError: token shards that were read are not what they were; nothing is saved.
        """
        if context.nonfinite_steps:
            return  # never the newest checkpoint of a run that has lost its footing
        self._refuse_changed_shards(context)
        context.log.flush()
        self.saved_step = context.step
        snapshot = context.engine.snapshot()
        rng, rng_file = rng_state(), rng_name(context.ranks.rank)
        metadata = RunMetadata(
            **self.identity,
            stage=context.plan.stage.name,
            tokens=context.tokens,
            next_sample=context.step,
            data=data_in_use(context),
            data_changes=context.data_changes,
            callbacks={one.name: state for one in context.callbacks if (state := one.state_dict())},
            versions=package_versions(),
        )

        def write(folder: Path) -> None:
            from safetensors.torch import save_file

            snapshot.write(folder)
            save_file(rng, str(folder / rng_file))

        trained = sum(value.numel() for value in context.engine.model.trained().values())
        self.saver.start(
            context.step,
            metadata.model_dump(mode="json"),
            write,
            estimate_bytes=checkpoint_bytes(trained, context.recipe.train.precision),
        )

    def _refuse_changed_shards(self, context: RunContext) -> None:
        def problem() -> str | None:
            try:
                self.recheck.look()
            except DataError as error:
                return str(error)
            return None

        found = next(filter(None, self.group.all_gather(problem())), None)
        if found is not None:
            self.saver.finish()
            raise ChangedDataError(
                f"{found}: changed while it was trained on; step {context.step} is not saved, the run goes "
                "on from its newest checkpoint"
            )

    def newest(self) -> StoredCheckpoint | None:
        """The newest good checkpoint, refused when it belongs to another recipe, base or tokenizer.

        Raises:
            CheckpointError: none of those that exist is good, or it is foreign; the message names why.
        """
        checkpoint = self.store.newest_good(self.group)
        if checkpoint is None:
            return None
        for key, here in self.identity.items():
            if checkpoint.metadata.get(key) != here:
                raise CheckpointError(
                    f"{checkpoint.path} was made with another {key.split('_')[0]} ({key} "
                    f"{checkpoint.metadata.get(key)} there, {here} here); use another --output"
                )
        return checkpoint

    def init_from_checkpoint(self, context: RunContext, place: Path) -> StoredCheckpoint:
        """Takes the trained weights, and nothing else, from a checkpoint of another run over the same base
        and vocabulary; `place` is a checkpoint folder or a run folder (then its newest good one).

        Raises:
            CheckpointError: it is damaged, or of another base or vocabulary, or trains other parameters.
        """
        if is_checkpoint(place):
            checkpoint, problems = examine_checkpoint(place, self.group)
            if checkpoint is None or problems:
                raise CheckpointError(f"--resume-from {place} is not usable: {'; '.join(problems[:3])}")
        else:
            others = CheckpointStore(RunFolder(place).checkpoints, keep_last=1, keep_every_steps=None)
            found = others.newest_good(self.group)
            if found is None:
                raise CheckpointError(f"--resume-from {place}: no checkpoint there")
            checkpoint = found
        for key in ("base_fingerprint", "tokenizer_fingerprint"):
            if checkpoint.metadata.get(key) != self.identity[key]:
                raise CheckpointError(
                    f"--resume-from {checkpoint.path} was trained over another {key.split('_')[0]}; its "
                    "weights mean nothing here: use the same base, and the same vocabulary sources and sizes"
                )
        context.engine.restore(checkpoint, weights_only=True)
        return checkpoint

    def restore(self, context: RunContext, checkpoint: StoredCheckpoint) -> None:
        """Loads trained state, RNG and the callbacks' states; another number of ranks than saved is resharded
        by name."""
        # Each rank reads files of its own: what one cannot read is an error of all before any rank goes on.
        together(
            self.group, lambda: self._check_files(context, checkpoint), f"{checkpoint.path} cannot be used"
        )
        if context.engine.restore(checkpoint) and context.is_main:
            logger.info(f"resharded from {checkpoint.world_size} to {context.ranks.world_size} ranks")
        states: dict[str, Any] = dict(checkpoint.metadata.get("callbacks", {}))
        for callback in context.callbacks:
            callback.load_state_dict(states.get(callback.name, {}))
        context.step = checkpoint.step
        if checkpoint.world_size != context.ranks.world_size:
            seed_rng(context.recipe.seed, checkpoint.step, context.ranks.rank)
            return
        set_rng_state(load_tensors(checkpoint, rng_name(context.ranks.rank)))

    def _check_files(self, context: RunContext, checkpoint: StoredCheckpoint) -> None:
        context.engine.check_files(checkpoint)
        if checkpoint.world_size == context.ranks.world_size:
            load_tensors(checkpoint, rng_name(context.ranks.rank))


def rng_name(rank: int) -> str:
    """The file of one rank's random number generators."""
    return f"rng-rank-{rank}.safetensors"


def rng_state() -> dict[str, torch.Tensor]:
    """The generators dropout draws from: the CPU's, and this rank's device's where there is one."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def seed_rng(seed: int, step: int, rank: int) -> None:
    """The generators after a change of the number of ranks: what a rank drew before belongs to nobody now,
    so its next numbers are a function of seed, step and rank alone."""
    digest = hash_text(f"{seed}:{step}:{rank}")
    torch.manual_seed(int(digest[:15], 16))


def set_rng_state(state: dict[str, Any]) -> None:
    """Restores what `rng_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
