"""The run folder: where everything of a run lies, whose it is, and the lock that keeps it to one process.

This module is the only place that knows a path below a run folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from persianmind.common.errors import DiskError, RunFolderError, RunLockedError
from persianmind.common.lock import LockHeldError, OwnedLock
from persianmind.recipe import Recipe
from persianmind.recipe.loading import read_run_recipe, write_run_recipe
from persianmind.run.identity import FIXED, difference
from persianmind.run.keys import Effect


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder, by the paths in it. It belongs to one recipe as soon as something in it depends on
    that."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def recipe(self) -> Path:
        """The resolved recipe, YAML."""
        return self.path / "recipe.yaml"

    @property
    def lock(self) -> Path:
        """The right to work in this folder, and who has it."""
        return self.path / ".lock"

    @property
    def prepared(self) -> Path:
        """What preparation found or made (`records.Prepared`); written last, other ranks wait for it."""
        return self.path / "prepared.json"

    @property
    def engine_config(self) -> Path:
        """What the engine was opened with: its own config file, filled from the recipe; JSON."""
        return self.path / "engine.json"

    @property
    def vocab(self) -> Path:
        """The expanded tokenizer, a Hugging Face folder with expansion.json beside."""
        return self.path / "vocab"

    @property
    def heldout(self) -> Path:
        """Held-out text, one JSON-lines file for each language."""
        return self.path / "heldout"

    @property
    def data(self) -> Path:
        """Token shards, a folder for each source and sequence length."""
        return self.path / "data"

    def shards(self, packing: str) -> Path:
        """The token shards of one source, by the name of the packing (recipe/packing.py)."""
        return self.data / packing

    @property
    def builder_log(self) -> Path:
        """What the process that builds data beside training prints."""
        return self.path / "builder.log"

    @property
    def log(self) -> Path:
        """All that `persianmind train`, its launcher and its ranks print."""
        return self.path / "run.log"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints, a folder for each."""
        return self.path / "checkpoints"

    @property
    def has_checkpoints(self) -> bool:
        """Whether any checkpoint, whole or not, lies there: steps were done."""
        return any(self.checkpoints.glob("step-*"))

    @property
    def has_steps(self) -> bool:
        """Whether anything was trained here, though its checkpoints may have been deleted since."""
        logged = self.metrics.is_file() and self.metrics.stat().st_size > 0
        return self.has_checkpoints or logged or self.export.exists()

    @property
    def metrics(self) -> Path:
        """metrics.jsonl: one `records.StepRecord` per optimizer step."""
        return self.path / "metrics.jsonl"

    @property
    def discarded_metrics(self) -> Path:
        """Lines of steps that a resumed run does again."""
        return self.path / "metrics.discarded.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def results(self) -> Path:
        """results.json: `records.RunResults`."""
        return self.path / "results.json"

    @property
    def evaluation(self) -> Path:
        """What evaluations keep beside results.json: records of items, scores of documents, new tokens."""
        return self.path / "evaluation"

    def base_documents(self, language: str) -> Path:
        """The loss of each held-out document of a language under the untouched base."""
        return self.evaluation / f"base-{language}.json"

    def new_tokens(self, stage: str) -> Path:
        """A line per new token, as it stood at the end of a stage."""
        return self.evaluation / f"new-tokens-{stage}.jsonl"

    @property
    def export(self) -> Path:
        """The merged model, a Hugging Face folder."""
        return self.path / "export"

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.path / "report.html"

    @property
    def energy(self) -> Path:
        """The energy ledger, a JSON-lines file for each node."""
        return self.path / "energy"

    def ledger(self, node: str) -> Path:
        """The ledger of one node."""
        return self.energy / f"{node}.jsonl"

    def meter_lock(self, node: str) -> Path:
        """The right to count one node."""
        return self.energy / f".{node}.lock"

    @property
    def power_limits(self) -> Path:
        """Power limits to be put back after a sweep."""
        return self.energy / "power-limits.json"

    @property
    def heartbeats(self) -> Path:
        """A small file for each rank, for the watchdog."""
        return self.path / "heartbeats"

    def traceback(self, rank: int) -> Path:
        """Where the last failure of a rank stands whole that the console showed as one line."""
        return self.path / "tracebacks" / f"rank-{rank}.txt"

    def require(self) -> None:
        """Refuses what is no run folder.

        Raises:
            RunFolderError: with what was expected there.
        """
        if not self.path.is_dir():
            raise RunFolderError(f"no run folder {self}; give the folder a run wrote, such as runs/demo")
        if not any(path.exists() for path in (self.recipe, self.metrics, self.results, self.energy)):
            raise RunFolderError(
                f"{self} is no run folder: it holds no recipe.yaml, metrics.jsonl or energy/"
            )

    def check(self, recipe: Recipe) -> None:
        """Whether a run of this recipe may use the folder. Writes nothing.

        Raises:
            RunFolderError: it is a file, holds another recipe's run, or holds something else.
            DamagedFileError: its recipe.yaml is not as it was written.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunFolderError(f"--output {self} is a file; give a folder")
        if not self.recipe.is_file():
            is_ours = self.prepared.is_file() or self.has_checkpoints
            if not is_ours and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise RunFolderError(f"--output {self} is not empty and no run folder; give a new folder")
            return
        if found := difference(read_run_recipe(self.recipe), recipe, self._fixed()):
            anew = "" if self.has_steps else f", or delete {self.vocab} and {self.data}: no step is done"
            raise RunFolderError(
                f"{self} belongs to a run with {found.key}={found.before!r}, this one has {found.after!r}; "
                f"use another --output, or the recipe it was started with{anew}"
            )

    def _fixed(self) -> frozenset[Effect]:
        """Which keys may not differ any more, by what depends on them."""
        if self.has_steps:
            return FIXED
        has_text = self.vocab.exists() or self.data.exists()
        return frozenset({Effect.TEXT}) if has_text else frozenset()

    def claim(self, recipe: Recipe) -> None:
        """Checks, then writes the resolved recipe into the folder (again, when keys changed).

        Raises:
            RunFolderError: as `check`.
        """
        from persianmind.run.taken_up import take_up

        self.check(recipe)
        if self.recipe.is_file():
            take_up(self, read_run_recipe(self.recipe), recipe)
        write_run_recipe(self.recipe, recipe)

    def holds(self, recipe: Recipe) -> bool:
        """Whether the run begun here has this recipe, in all that its results depend on."""
        if not self.recipe.is_file():
            return False
        return difference(read_run_recipe(self.recipe), recipe, FIXED | {Effect.RESULTS}) is None


class RunLock:
    """Context manager that holds a run folder for this process (rank 0 takes it for all ranks)."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._lock = OwnedLock(folder.lock)

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
            RunLockedError: a living process holds it; the message names its pid and host.
            DiskError: the disk refuses its file.
        """
        try:
            self._lock.__enter__()
        except LockHeldError as error:
            # Only by the record can a dead owner look alive: it ran on another host.
            hint = "" if error.certain else f" (if it is surely gone, delete {self._lock.path})"
            raise RunLockedError(
                f"{self._folder} is in use by {error.owner or 'another process'}; wait for it, stop it, or "
                f"give another --output{hint}"
            ) from None
        except DiskError:
            raise
        except OSError as error:
            raise RunLockedError(
                f"{self._folder} cannot be locked: {error}; remove what is in the way"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)
