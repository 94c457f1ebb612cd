"""Reading folders that another process is building."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from persianmind.common.poll import wait_until
from persianmind.data.build.builder import build_steps
from persianmind.data.build.source import build_fingerprints
from persianmind.data.manifest import Fingerprints, read_building
from persianmind.data.read.batches import StageData
from persianmind.data.read.dataset import TokenDataset
from persianmind.data.read.incremental import IncrementalDataset
from persianmind.data.read.order import Mixture
from persianmind.recipe import Recipe
from persianmind.tokenizer import FolderTokenizer
from tests.data.helpers import make_job

WAIT_S = 60.0


class SlowBuilder:
    """A real second process that builds what it is asked for, slowly."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.data.build.slow_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self, recipe: Recipe, tokenizer: Path, out: Path, *, batch_records: int, pause_s: float
    ) -> None:
        assert self.process.stdin is not None
        request: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "tokenizer": str(tokenizer)}
        request |= {"out": str(out), "batch_records": batch_records, "pause_s": pause_s}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def finish(self) -> bool:
        """Whether all of it could be built."""
        assert self.process.stdout is not None
        return bool(json.loads(self.process.stdout.readline())["whole"])

    def kill(self) -> None:
        """SIGKILL: whatever it was doing stays as it is."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def prints(recipe: Recipe, name: str, tokenizer: Path) -> Fingerprints:
    job = make_job(recipe, name, tokenizer, Path("unused"))
    return build_fingerprints(job, FolderTokenizer(tokenizer))


def incremental(recipe: Recipe, tokenizer: Path, out: Path, **options: Any) -> dict[str, TokenDataset]:
    """A reader of every source, whatever of it is built."""
    return {
        name: IncrementalDataset(out / name, prints(recipe, name, tokenizer), **options)
        for name in recipe.sources
    }


def stage(recipe: Recipe, datasets: dict[str, TokenDataset], seed: int = 3) -> StageData:
    """The recipe's first stage over these readers."""
    data, weights = recipe.data, recipe.stages[0].sources
    sequences = {name: datasets[name].num_sequences for name in weights}
    mixture = Mixture(
        sequences, weights, data.mixture_window, seed, block_sequences=data.shuffle_block_sequences
    )
    return StageData(mixture, datasets)


def served(data: StageData, samples: range) -> list[tuple[tuple[str, int], bytes, bytes, bytes]]:
    """What these samples are: their places and every byte of their sequences."""
    found = []
    for sample in samples:
        sequence = data.sequence(sample)
        arrays = (sequence.input_ids, sequence.position_ids, sequence.labels)
        found.append((data.locate(sample), *(array.tobytes() for array in arrays)))
    return found


def build_part(
    recipe: Recipe, name: str, tokenizer: Path, out: Path, shards: int, heldout: Path | None = None
) -> None:
    """Builds in this process until N shards are published, and stops there as if interrupted."""
    with closing(build_steps(make_job(recipe, name, tokenizer, out / name, heldout))) as steps:
        for step in steps:
            if step.shards >= shards:
                return
    raise AssertionError(f"{name} has fewer than {shards} shards")


def wait_for(what: Callable[[], bool]) -> None:
    """Until it is so; fails after a minute."""
    assert wait_until(what, timeout_s=WAIT_S, interval_s=0.01), "waited for nothing"


def published_shards(folder: Path) -> int:
    published = read_building(folder)
    return 0 if published is None else len(published.shards)
