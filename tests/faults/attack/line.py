"""The whole line from text to exported model, as an attacker sees it: phases by what lies in the run folder,
victims by what they run.

No code of a run is changed: a fault comes from outside, at a moment that is drawn within a phase.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import psutil
import yaml

from persianmind.common.checksum import read_checked
from persianmind.common.errors import DamagedFileError
from persianmind.recipe.loading import find_recipe, load_recipe
from persianmind.text.corpus import training_texts
from persianmind.text.spec import source_specs
from tests.faults.helpers import assert_same_run
from tests.support.launch import Launched

DOCUMENTS = 5_000
BESIDE = "cuts"  # the source that is built beside training
# In the order in which kills of one run are drawn. "resume" is the start of a later attempt.
PHASES = (
    "heldout",
    "vocabulary",
    "build",
    "start",
    "step",
    "save",
    "evaluate",
    "resume",
    "export",
    "finish",
)
ONCE = PHASES[:4]  # in an attempt
BUILDER, METER, LAUNCHER = "builder", "meter", "launcher"
MODULES = {BUILDER: "persianmind.data.build.worker", METER: "persianmind.energy.meter.process"}
STARTERS, STARTER_MODULE = ("/deepspeed", "/launch.py"), "deepspeed.launcher.launch"
# Beside these, what is written holds times, joules or paths.
SAME_BYTES = (
    "vocab/*",
    "heldout/*.jsonl",
    "data/*/shard-*",
    "export/*.safetensors",
    "export/tokenizer*.json",
)


def attack_recipe(folder: Path) -> Path:
    """The tiny recipe with a source that is still being built while training runs, evaluations within its
    stages and an export, as a file in `folder`."""
    words = " ".join(training_texts(source_specs(load_recipe("tiny"), ["poems"]), frozenset())).split()
    draw = random.Random(4)
    with (folder / "cuts.jsonl").open("w", encoding="utf-8") as handle:
        for number in range(DOCUMENTS):
            start = draw.randrange(len(words) - 150)
            text = f"{' '.join(words[start : start + 150])} {number}"
            handle.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    tree = yaml.safe_load(find_recipe("tiny").read_text(encoding="utf-8"))
    tree["sources"][BESIDE] = {"uri": str(folder / "cuts.jsonl"), "language": "fa"}
    tree["quality"] = {"near_duplicates": True, "near_duplicate_threshold": 1.0}
    tree["vocab"] = {"new_tokens": 200, "sources": ["messages"]}
    tree["data"] |= {"sequences_per_shard": 256, "shuffle_block_sequences": 512}
    tree["stages"][0]["sources"] = {BESIDE: 0.5, "poems": 0.3, "english": 0.2}
    path = folder / "attack.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return path


class Observer:
    """Tells the phase of one attempt from the files of its run folder.

    stage_ends: by stage, the step it ends with.
    """

    def __init__(self, run: Path, stage_ends: dict[str, int]) -> None:
        self.run, self.stage_ends = run, stage_ends
        self._steps_before = self.steps()

    def steps(self) -> int:
        """Lines of metrics.jsonl."""
        path = self.run / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    def phase(self) -> str:
        """One of PHASES but "resume", or "done"."""
        run = self.run
        if not (run / "vocab" / "expansion.json").is_file():
            return "vocabulary" if any(run.glob("heldout/*.jsonl")) else "heldout"
        if not (run / "prepared.json").is_file():
            return "build"
        if any(run.glob("checkpoints/.tmp-*")):
            return "save"
        steps, results = self.steps(), self._results()
        if results.get("finished"):
            return "done"
        evaluated = {one["stage"] for one in results.get("evaluation", ())}
        if steps == max(self.stage_ends.values()) and evaluated >= {*self.stage_ends}:
            return "finish" if (run / "export").is_dir() else "export"
        if any(steps == end and stage not in evaluated for stage, end in self.stage_ends.items()):
            return "evaluate"
        return "step" if self.has_stepped() else "start"

    def has_stepped(self) -> bool:
        """Whether this attempt is past its start."""
        return self.steps() > self._steps_before

    def is_past(self, phase: str) -> bool:
        """Whether this attempt will not come to a phase of its beginning any more."""
        return phase in ONCE and self.phase() not in PHASES[: PHASES.index(phase) + 1]

    def _results(self) -> dict[str, Any]:
        try:
            return read_checked(self.run / "results.json")
        except (FileNotFoundError, DamagedFileError):
            return {}


def processes_of(run: Path, server: int | None) -> dict[str, psutil.Process]:
    """Every living process of a run by what it is: "rank 0" and so on, "builder", "meter", "launcher".

    server: pid of the process that forks ranks without a launcher.
    """
    found: dict[str, psutil.Process] = {}
    forked = []
    for process in psutil.process_iter(["cmdline", "ppid", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        if server is not None and process.info["ppid"] == server:
            forked.append(process)
        elif any(str(run) in word for word in words):
            found.setdefault(_what(process, words), process)
    # Of one server, the first that it forked is rank 0.
    found |= {f"rank {number}": one for number, one in enumerate(sorted(forked, key=lambda one: one.pid))}
    return found


def _what(process: psutil.Process, words: list[str]) -> str:
    module = next((name for name, module in MODULES.items() if module in words), None)
    if module is not None:
        return module
    if any(word.endswith(STARTERS) or word == STARTER_MODULE for word in words[:4]):
        return LAUNCHER
    try:
        return f"rank {process.environ().get('RANK', '?')}"
    except psutil.Error:
        return "ended"


def assert_same_line(again: Launched, whole: Launched) -> None:
    """Every loss, score and lasting byte is that of the run which nothing disturbed."""
    assert_same_run(again, whole)
    assert again.results["evaluation"] == whole.results["evaluation"]
    assert again.results["export"] == whole.results["export"]
    ours, theirs = lasting_bytes(again.run), lasting_bytes(whole.run)
    different = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    # What is built beside training ends with the run, whole or not; a shard that both have is the same.
    left = sorted(name for name in different if not _only_one_has(name, ours, theirs))
    assert not left, left


def _only_one_has(name: str, ours: dict[str, str], theirs: dict[str, str]) -> bool:
    return name.startswith(f"data/{BESIDE}/") and not (name in ours and name in theirs)


def lasting_bytes(run: Path) -> dict[str, str]:
    """Hashes of the files that any two runs of one recipe have in common."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in SAME_BYTES
        for path in sorted(run.glob(pattern))
        if path.is_file()
    }


def stage_ends(launched: Launched) -> dict[str, int]:
    """By stage, the step a finished run ended it with."""
    return {line["stage"]: line["step"] for line in launched.metrics}
