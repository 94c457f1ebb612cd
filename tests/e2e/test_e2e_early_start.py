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
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from persianmind.recipe_file import find_recipe, load_recipe
from persianmind.text.documents import training_texts
from tests.launching import ROOT, Launched, command, launch

pytestmark = pytest.mark.slow
DOCUMENTS = 30_000
MANIFEST = "data/poems/manifest.json"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 MB of different cuts of the poems: about half a minute of building, near duplicates looked for."""
    words = " ".join(training_texts(load_recipe("tiny"), ["poems"])).split()
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
    options = [f"--recipe={run / 'recipe.yaml'}", f"--tokenizer={run / 'vocab'}", f"--out={run / 'data'}"]
    subprocess.run(
        [sys.executable, "-m", "persianmind.data.builder", *options, "poems"], check=True, cwd=ROOT
    )


def _builders() -> set[int]:
    """Builder processes of anybody now."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if "persianmind.data.builder" in (process.info["cmdline"] or []):
            found.add(process.pid)
    return found


def test_steps_are_done_before_the_build_and_losses_are_those_after_it(corpus: Path, tmp_path: Path) -> None:
    stages = [{"name": "pretrain", "sources": {"poems": 0.6, "messages": 0.4}, "tokens": 20_480}]
    recipe = _recipe(tmp_path, corpus, stages, shard_rows=256, shuffle_block_rows=512)
    before = _builders()
    early = _launch(recipe, tmp_path / "early")
    assert not _builders() - before, "the builder ends with the run"
    assert not (early.run / MANIFEST).exists(), "the build took longer than the run"
    assert early.metrics[0]["characters_per_s"] is None
    published = json.loads((early.run / "data" / "poems" / "building.json").read_text())
    shards = {path.name: path.read_bytes() for path in early.run.glob("data/poems/shard-*")}
    assert len(published["shards"]) >= 2

    _finish_the_build(early.run)
    first_step = datetime.fromisoformat(early.metrics[0]["time"]).timestamp()
    assert first_step < (early.run / MANIFEST).stat().st_mtime
    for entry in published["shards"]:
        assert (early.run / "data" / "poems" / entry["file"]).read_bytes() == shards[entry["file"]]

    late_run = tmp_path / "late"
    late_run.mkdir()
    for name in ("data", "vocab"):
        shutil.copytree(early.run / name, late_run / name)
    shutil.copy2(early.run / "recipe.yaml", late_run / "recipe.yaml")
    late = _launch(recipe, late_run)
    assert not (late.run / "builder.log").exists(), "nothing was left to build"
    assert late.metrics[0]["characters_per_s"] > 0
    assert len(late.metrics) == 20 and _losses(late) == _losses(early)
    assert late.results["perplexity"] == early.results["perplexity"]


def test_a_stop_while_waiting_for_rows_is_kept_and_the_same_command_waits_on(
    corpus: Path, tmp_path: Path
) -> None:
    """The second stage needs a block that is the whole source, which takes longer than the first stage."""
    stages = [
        {"name": "warm", "sources": {"messages": 1.0}, "tokens": 4096},
        {"name": "main", "sources": {"poems": 1.0}, "tokens": 4096},
    ]
    recipe, run = _recipe(tmp_path, corpus, stages, shard_rows=256), tmp_path / "run"
    log = tmp_path / "log"
    before = _builders()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(["--recipe", str(recipe), "--output", str(run)], ranks=0),
            env={**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    _wait_for(lambda: "data: waiting for poems, of which" in log.read_text() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75, log.read_text()
    assert "stopped at step 4, saved, while the next rows were being built" in log.read_text()
    assert not _builders() - before
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-4"]
    shards = {path: path.stat().st_mtime_ns for path in run.glob("data/poems/shard-*")}
    assert shards and not (run / MANIFEST).exists()

    again = launch("--recipe", str(recipe), "--output", str(run), ranks=0)
    assert again.code == 0, again.text
    assert "at step 4" in again.text and "data: poems is whole" in again.text
    assert [line["stage"] for line in again.metrics] == ["warm"] * 4 + ["main"] * 4
    kept = [path for path, time_ns in shards.items() if path.stat().st_mtime_ns == time_ns]
    assert len(kept) >= len(shards) - 1, "built once"


def test_a_build_that_fails_ends_the_run_with_its_line(tmp_path: Path) -> None:
    """More bad rows than allowed, found when the run is under way."""
    rows = [{"text": f"شعر شماره {i} از دیوان"} if i % 5 else {"text": None} for i in range(3000)]
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    stages = [{"name": "pretrain", "sources": {"poems": 0.6, "messages": 0.4}, "tokens": 20_480}]
    run = tmp_path / "run"
    ended = launch("--recipe", str(_recipe(tmp_path, bad, stages)), "--output", str(run), ranks=2)
    assert ended.code == 2, ended.text
    assert len(ended.errors) == 1, ended.text
    assert "sources.poems" in ended.errors[0] and "rows are bad (20." in ended.errors[0]
    assert "Traceback" not in ended.text


def _wait_for(what: Callable[[], bool], within_s: float = 180) -> None:
    until_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until_s
        time.sleep(0.1)
