"""The way of somebody with text of her own, from nothing to a conversation, and how its screen is read."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.corpus import INSTRUCT_FILE, sample_documents
from tests.support.launch import CHATTER

MOST_COMMANDS = 6
TIMEOUT_S = 1200.0
WAY = (
    "init mine --base random://llama --language fa --text notes.txt --text pages.jsonl --instructions tasks",
    "check mine/recipe.yaml",
    "train mine/recipe.yaml 'stages.0.epochs={text: 0.1}' 'stages.1.epochs={instructions: 0.1}'",
    "watch runs/mine",
    "chat runs/mine --prompt سلام",
)
# What the lines of each command begin with: each was read, and nothing else may stand on the screen. What is
# answered is the model's own.
OURS = {
    "init": re.compile(r"text: |instructions: |wrote |  persianmind (check|train) "),
    "check": re.compile(r"doctor|[┏┃┡│└]|\d+ ok, |ready: "),
    "train": re.compile(
        r"mine: |device: |prepare: |data: |recompute: |self-tests?: |compile: |model: |batch: |stage |"
        r"memory per rank: |deterministic: |evaluate |samples |estimate: |new tokens after |training done: |"
        r"export: |pretrain {2,}|instruct {2,}|base {2,}|held-out documents: |energy|report: |gained: |"
        r"lost: |to lose less: |next: |still at it"
    ),
    "watch": re.compile(r"mine: done, |  export: "),
    "chat": re.compile(""),
}


def write_own_files(folder: Path) -> None:
    """Text as people have it: lines of prose, JSON lines, a folder of instructions."""
    (folder / "notes.txt").write_text("\n".join(sample_documents("syntran")), encoding="utf-8")
    pages = [json.dumps({"text": text}, ensure_ascii=False) for text in sample_documents("docs_vue")]
    (folder / "pages.jsonl").write_text("\n".join(pages), encoding="utf-8")
    (folder / "tasks").mkdir()
    shutil.copy(INSTRUCT_FILE, folder / "tasks")


def walk(folder: Path, program: Sequence[str], environment: Mapping[str, str]) -> None:
    """Goes the whole way in a folder that holds her files and nothing else.

    program: the words that start the command line, such as [python, "-m", "persianmind"].

    Raises:
        AssertionError: a command failed, said nothing, or a line on its screen is not ours.
    """
    for line in WAY:
        done = subprocess.run(
            [*program, *shlex.split(line)],
            cwd=folder, env={**environment}, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert done.stdout.strip(), line
        assert foreign_lines(line.split()[0], done.stdout, done.stderr) == [], line
    run = folder / "runs" / "mine"
    assert (run / "report.html").is_file() and (run / "export" / "config.json").is_file()
    # The control: there was something to keep from the screen.
    assert [word for word in CHATTER if word in (run / "run.log").read_text(encoding="utf-8")] != []


def foreign_lines(command: str, out: str, err: str) -> list[str]:
    """Lines that no line of ours begins like, and lines of launchers and libraries."""
    lines = [line for line in out.splitlines() if line and not OURS[command].match(line)]
    lines += [line for line in err.splitlines() if not line.startswith("persianmind: ")]
    return lines + [line for line in (out + err).splitlines() if any(word in line for word in CHATTER)]
