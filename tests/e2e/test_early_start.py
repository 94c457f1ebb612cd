"""Training starts while its data is being built, through the real launcher: the same losses to the bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from persianmind.data.manifest import read_building
from persianmind.recipe.loading import find_recipe, load_recipe
from persianmind.text.corpus import training_texts
from persianmind.text.spec import source_specs
from tests.support.launch import ROOT, Launched, command, launch

pytestmark = pytest.mark.integration
DOCUMENTS = 12_000
MANIFEST = "data/poems/manifest.json"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 MB of different cuts of the poems: some ten seconds of building, near duplicates looked for."""
    words = " ".join(training_texts(source_specs(load_recipe("tiny"), ["poems"]), frozenset())).split()
    chance = random.Random(4)
    path = tmp_path_factory.mktemp("corpus") / "cuts.jsonl"
    with path.open("w", encoding="utf-8") as handle:
        for number in range(DOCUMENTS):
            start = chance.randrange(len(words) - 150)
            text = f"{' '.join(words[start : start + 150])} {number}"
            handle.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return path


def _recipe(folder: Path, corpus: Path, stages: list[dict[str, Any]], **data: Any) -> Path:
    """The tiny recipe over this corpus, as a file in `folder`."""
    tree = yaml.safe_load(find_recipe("tiny").read_text(encoding="utf-8"))
    tree["sources"]["poems"] = {"uri": str(corpus), "language": "fa"}
    tree["quality"] = {"near_duplicates": True, "near_duplicate_threshold": 1.0}
    tree["vocab"] = {"new_tokens": 200, "sources": ["messages"]}
    tree["data"] |= data
    tree["stages"] = stages
    tree["export"] = {"enabled": False}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return path


def _launch(recipe: Path, run: Path) -> Launched:
    launched = launch("--recipe", str(recipe), "--output", str(run), ranks=2)
    assert launched.code == 0, launched.text
    return launched


def _losses(launched: Launched) -> list[str]:
    return [line["loss_hex"] for line in launched.metrics]


def _finish_the_build(run: Path) -> None:
    setting = json.dumps({"plan": str(run / "builder.json")})
    subprocess.run([sys.executable, "-m", "persianmind.data.build.worker", setting], check=True, cwd=ROOT)


class Running:
    """A run that is under way, and its builder."""

    def __init__(self, recipe: Path, run: Path, ranks: int) -> None:
        self.run, self.log = run, run.with_suffix(".log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command(["--recipe", str(recipe), "--output", str(run)], ranks=ranks),
                env={**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def builders(self) -> list[psutil.Process]:
        """The processes that build into this run folder."""
        plan = str(self.run / "builder.json")
        found = psutil.process_iter(["cmdline"])
        return [one for one in found if any(plan in part for part in one.info["cmdline"] or [])]

    def hold_builder(self, shards: int) -> psutil.Process:
        """Stops the builder once N shards of the poems are published: no race against its speed."""
        self.wait_for(lambda: bool(self.builders()) and published(self.run) >= shards)
        (builder,) = self.builders()
        builder.suspend()
        assert not (self.run / MANIFEST).exists(), "the corpus is too small for this machine"
        return builder

    def wait_for(self, what: Callable[[], bool], within_s: float = 180) -> None:
        until_s = time.monotonic() + within_s
        while not what():
            assert self.process.poll() is None and time.monotonic() < until_s, self.text
            time.sleep(0.02)


def published(run: Path) -> int:
    """Shards of the poems that readers may use."""
    building = read_building(run / "data" / "poems")
    return 0 if building is None else len(building.shards)


@pytest.mark.more
def test_steps_are_done_before_the_build_and_losses_are_those_after_it(corpus: Path, tmp_path: Path) -> None:
    stages = [{"name": "pretrain", "sources": {"poems": 0.6, "messages": 0.4}, "tokens": 20_480}]
    recipe = _recipe(tmp_path, corpus, stages, sequences_per_shard=256, shuffle_block_sequences=512)
    running = Running(recipe, tmp_path / "early", ranks=2)
    builder = running.hold_builder(shards=2)
    # a builder that stands still: every step is done on the first block alone
    running.wait_for(lambda: "training done: 20 steps" in running.text)
    assert not (running.run / MANIFEST).exists()
    with suppress(psutil.NoSuchProcess):  # the run ends it, in the end by SIGKILL
        builder.resume()
    assert running.process.wait(120) == 0, running.text
    assert not running.builders(), "the builder ends with the run"
    early = Launched(0, running.text, 0.0, running.run)
    assert early.metrics[0]["characters_per_s"] is None
    shards = {path: path.read_bytes() for path in early.run.glob("data/poems/shard-*")}
    kept = published(early.run)
    assert 2 <= kept <= len(shards)

    _finish_the_build(early.run)
    first_step = datetime.fromisoformat(early.metrics[0]["time"]).timestamp()
    assert first_step < (early.run / MANIFEST).stat().st_mtime
    assert all(path.read_bytes() == content for path, content in shards.items())

    late_run = tmp_path / "late"
    late_run.mkdir()
    for name in ("data", "vocab", "heldout"):
        shutil.copytree(early.run / name, late_run / name)
    shutil.copy2(early.run / "recipe.yaml", late_run / "recipe.yaml")
    late = _launch(recipe, late_run)
    assert not (late.run / "builder.log").exists(), "nothing was left to build"
    assert late.metrics[0]["characters_per_s"] > 0
    assert len(late.metrics) == 20 and _losses(late) == _losses(early)
    assert late.results["evaluation"] == early.results["evaluation"]


@pytest.mark.long
def test_a_stop_and_a_killed_builder_while_waiting_are_kept_and_the_same_command_waits_on(
    corpus: Path, tmp_path: Path
) -> None:
    """The second stage needs a block that is the whole source, whose builder is held at its first shards."""
    stages = [
        {"name": "warm", "sources": {"messages": 1.0}, "tokens": 4096},
        {"name": "main", "sources": {"poems": 1.0}, "tokens": 4096},
    ]
    recipe, run = _recipe(tmp_path, corpus, stages, sequences_per_shard=256), tmp_path / "run"
    stopped = Running(recipe, run, ranks=0)
    builder = stopped.hold_builder(shards=2)
    stopped.wait_for(lambda: "data: waiting for poems, of which" in stopped.text)
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.process.wait(60) == 75, stopped.text
    assert "stopped at step 4, saved, while the next sequences were being built" in stopped.text
    assert not builder.is_running() and not (run / MANIFEST).exists()

    killed = Running(recipe, run, ranks=0)
    builder = killed.hold_builder(shards=2)
    killed.wait_for(lambda: "data: waiting for poems, of which" in killed.text)
    builder.kill()
    assert killed.process.wait(60) == 2, killed.text
    errors = [line for line in killed.text.splitlines() if line.startswith("persianmind: error:")]
    assert len(errors) == 1 and "was ended by signal 9" in errors[0] and "Traceback" not in killed.text
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-4"]
    shards = {path: path.stat().st_mtime_ns for path in run.glob("data/poems/shard-*")}
    assert len(shards) >= 2

    again = launch("--recipe", str(recipe), "--output", str(run), ranks=0)
    assert again.code == 0, again.text
    assert "at step 4" in again.text and "data: poems is whole" in again.text
    assert [line["stage"] for line in again.metrics] == ["warm"] * 4 + ["main"] * 4
    kept = [path for path, time_ns in shards.items() if path.stat().st_mtime_ns == time_ns]
    assert len(kept) >= len(shards) - 1, "built once"


@pytest.mark.more
def test_a_build_that_fails_ends_the_run_with_its_line(tmp_path: Path) -> None:
    """More bad records than allowed, found when the run is under way."""
    sequences = [{"text": f"شعر شماره {i} از دیوان"} if i % 5 else {"text": None} for i in range(3000)]
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(sequence) + "\n" for sequence in sequences), encoding="utf-8")
    stages = [{"name": "pretrain", "sources": {"poems": 0.6, "messages": 0.4}, "tokens": 20_480}]
    run = tmp_path / "run"
    ended = launch("--recipe", str(_recipe(tmp_path, bad, stages)), "--output", str(run), ranks=2)
    assert ended.code == 2, ended.text
    assert len(ended.errors) == 1, ended.text
    assert "sources.poems" in ended.errors[0] and "records are bad (20." in ended.errors[0]
    assert "Traceback" not in ended.text
