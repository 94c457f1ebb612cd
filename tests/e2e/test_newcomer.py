"""The way of somebody with text of her own, from nothing to a conversation: at most six commands, and no line
on the screen that is not ours."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.test_train_command import CHATTER
from tests.support.corpus import INSTRUCT_FILE, sample_documents
from tests.support.launch import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.more, pytest.mark.timeout(1800)]
WAY = (
    "init mine --base random://llama --language fa --text notes.txt --text pages.jsonl --instructions tasks",
    "check mine/recipe.yaml",
    "train mine/recipe.yaml 'stages.0.epochs={text: 0.1}' 'stages.1.epochs={instructions: 0.1}'",
    "watch runs/mine",
    "chat runs/mine --prompt سلام",
)


@pytest.fixture
def own_files(tmp_path: Path) -> Path:
    """Text as people have it: lines of prose, JSON lines, instructions."""
    (tmp_path / "notes.txt").write_text("\n".join(sample_documents("syntran")), encoding="utf-8")
    pages = [json.dumps({"text": text}, ensure_ascii=False) for text in sample_documents("docs_vue")]
    (tmp_path / "pages.jsonl").write_text("\n".join(pages), encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    shutil.copy(INSTRUCT_FILE, tmp_path / "tasks")
    return tmp_path


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "persianmind", *shlex.split(line)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def test_from_files_to_a_conversation(own_files: Path) -> None:
    assert len(WAY) <= 6
    for line in WAY:
        done = run(own_files, line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert done.stdout.strip(), line
        shown = done.stdout + done.stderr
        assert [word for word in CHATTER if word in shown] == [], line
        assert [one for one in done.stderr.splitlines() if not one.startswith("persianmind: ")] == [], line
    assert (own_files / "runs" / "mine" / "report.html").is_file()
    assert (own_files / "runs" / "mine" / "export" / "config.json").is_file()
