"""What a checkpoint of a run holds, and taking a run up again from the newest good one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from persianmind.checkpoint.background import BackgroundSaver
from persianmind.checkpoint.group import together
from persianmind.checkpoint.manifest import is_checkpoint
from persianmind.checkpoint.store import Checkpoint, CheckpointStore
from persianmind.checkpoint.verify import examine
from persianmind.common.checksum import hash_text
from persianmind.common.errors import CheckpointError
from persianmind.engine.deepspeed.engine import Engine
from persianmind.engine.deepspeed.files import load_engine, load_weights, snapshot_engine, write_snapshot
from persianmind.engine.deepspeed.loading import load_verified
from persianmind.engine.deepspeed.reshard import MODEL_STATES, TAG, shard_names
from persianmind.engine.ranks import TorchGroup
from persianmind.recipe import Recipe
from persianmind.run.identity import FREE_SECTIONS
from persianmind.train.prepare import Prepared

FOLDER = "checkpoints"
PACKAGES = ("torch", "deepspeed", "transformers", "peft", "tokenizers", "persianmind")


def package_versions() -> dict[str, str]:
    """The versions a checkpoint and results.json record."""
    return {name: version(name) for name in PACKAGES}


class RunCheckpoints:
    """Saves beside training (a snapshot, then a background write) and restores; all ranks together."""

    def __init__(
        self, recipe: Recipe, run: Path, engine: Engine, prepared: Prepared, say: Callable[[str], None]
    ) -> None:
        self.engine = engine
        self.say = say
        self.seed = recipe.seed
        self.identity = {
            "recipe_hash": hash_text(recipe.model_dump_json(exclude=FREE_SECTIONS)),
            "base_fingerprint": prepared.base_fingerprint,
            "tokenizer_fingerprint": prepared.tokenizer_fingerprint,
        }
        self.store = CheckpointStore(
            run / FOLDER,
            keep_last=recipe.checkpoint.keep_last,
            keep_every_steps=recipe.checkpoint.keep_every_steps,
            report=say,
            on_phase=lambda _: engine.beat(),
        )
        self.group = TorchGroup(engine.ranks)
        # The background thread talks on a process group of its own, beside the gradients' one.
        self.saver = BackgroundSaver(self.store, TorchGroup(engine.ranks, own=True))

    def save(self, step: int, *, stage: str, tokens: int, history: Mapping[str, Any]) -> None:
        """Snapshots now and writes while training goes on; waits for the save before it, if one runs.

        Raises:
            CheckpointError: the save before failed on some rank; older checkpoints are intact.
        """
        snapshot = snapshot_engine(self.engine.deepspeed)
        rng = rng_state()
        rank = self.engine.ranks.rank
        metadata = {
            **self.identity,
            "stage": stage,
            "tokens": tokens,
            "next_sample": step,
            "history": dict(history),
            "versions": package_versions(),
        }

        def write(folder: Path) -> None:
            from safetensors.torch import save_file

            write_snapshot(snapshot, folder)
            save_file(rng, str(folder / rng_name(rank)))

        self.saver.start(step, metadata, write, estimate_bytes=self._estimate_bytes())

    def finish(self) -> None:
        """Waits until the last save is committed."""
        self.saver.finish()

    def newest(self) -> Checkpoint | None:
        """The newest good checkpoint, refused when it belongs to another recipe, base or tokenizer.

        Raises:
            CheckpointError: none of those that exist is good, or it is foreign; the message names why.
        """
        checkpoint = self.store.newest_good(self.say, self.group)
        if checkpoint is None:
            return None
        for key, here in self.identity.items():
            if checkpoint.metadata.get(key) != here:
                raise CheckpointError(
                    f"{checkpoint.path} was made with another {key.split('_')[0]} ({key} "
                    f"{checkpoint.metadata.get(key)} there, {here} here); use another --output"
                )
        return checkpoint

    def init_from_checkpoint(self, place: Path) -> Checkpoint:
        """Takes the trained weights, and nothing else, from a checkpoint of another run over the same base
        and vocabulary; `place` is a checkpoint folder or a run folder (then its newest good one).

        Raises:
            CheckpointError: it is damaged, or of another base or vocabulary, or trains other parameters.
        """
        if is_checkpoint(place):
            checkpoint, problems = examine(place, self.group)
            if checkpoint is None or problems:
                raise CheckpointError(f"--resume-from {place} is not usable: {'; '.join(problems[:3])}")
        else:
            others = CheckpointStore(place / FOLDER, keep_last=1, keep_every_steps=None)
            found = others.newest_good(self.say, self.group)
            if found is None:
                raise CheckpointError(f"--resume-from {place}: no checkpoint there")
            checkpoint = found
        for key in ("base_fingerprint", "tokenizer_fingerprint"):
            if checkpoint.metadata.get(key) != self.identity[key]:
                raise CheckpointError(
                    f"--resume-from {checkpoint.path} was trained over another {key.split('_')[0]}; its "
                    "weights mean nothing here: use the same base, and the same vocabulary sources and sizes"
                )
        load_weights(self.engine.deepspeed, checkpoint)
        return checkpoint

    def restore(self, checkpoint: Checkpoint) -> None:
        """Loads trained state and RNG; another number of ranks than saved is resharded by name."""
        # Each rank reads files of its own: what one cannot read is an error of all before any rank goes on.
        together(self.group, lambda: self._try_files(checkpoint), f"{checkpoint.path} cannot be used")
        resharded = load_engine(self.engine.deepspeed, checkpoint)
        # DeepSpeed resets its boundary mode on load.
        self.engine.deepspeed.set_gradient_accumulation_boundary(True)
        if resharded:
            self.say(f"resharded from {checkpoint.world_size} to {self.engine.ranks.world_size} ranks")
        if checkpoint.world_size != self.engine.ranks.world_size:
            seed_rng(self.seed, checkpoint.step, self.engine.ranks.rank)
            return
        set_rng_state(load_verified(checkpoint, rng_name(self.engine.ranks.rank)))

    def _try_files(self, checkpoint: Checkpoint) -> None:
        rank, names = self.engine.ranks.rank, shard_names(checkpoint)
        if checkpoint.world_size == self.engine.ranks.world_size:
            for name in (f"{TAG}/{MODEL_STATES}", names[rank], rng_name(rank)):
                load_verified(checkpoint, name)

    def _estimate_bytes(self) -> int:
        trained = sum(value.numel() for value in self.engine.model.trained().values())
        return trained * 14  # fp32 master, two Adam moments, the bf16 copy


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
