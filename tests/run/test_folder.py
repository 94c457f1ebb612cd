"""A run folder belongs to one recipe and one process: what may differ, what may not, who is inside."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from persianmind.common.errors import RunFolderError, RunLockedError
from persianmind.common.lock import OwnedLock
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder, RunLock

TINY = load_recipe("tiny")
FIXED = [
    ("seed=1", "seed", 7, 1),
    ("train.learning_rate=0.5", "train.learning_rate", 0.005, 0.5),
    ("stages.1.tokens=99", "stages.1.tokens", 7168, 99),
    ("base=random://llama-tied", "base", "random://llama", "random://llama-tied"),
]


@pytest.mark.parametrize(("override", "key", "before", "after"), FIXED)
def test_a_key_that_makes_it_another_run_is_named_with_both_values(
    tmp_path: Path, override: str, key: str, before: object, after: object
) -> None:
    """Which keys these are, and from when on: test_keys.py."""
    other = load_recipe("tiny", [override])
    folder = RunFolder(tmp_path / "run")
    folder.claim(TINY)
    (folder.checkpoints / "step-1").mkdir(parents=True)
    with pytest.raises(RunFolderError) as refused:
        folder.claim(other)
    assert f"belongs to a run with {key}={before!r}, this one has {after!r}; use another" in str(
        refused.value
    )
    assert load_recipe(str(folder.recipe)) == TINY and folder.holds(TINY) and not folder.holds(other)


def test_what_is_no_run_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for path, words in ((tmp_path, "not empty and no run folder"), (tmp_path / "thesis.tex", "is a file")):
        with pytest.raises(RunFolderError, match=words):
            RunFolder(path).claim(TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunFolderError, match="no run folder"):
        RunFolder(tmp_path / "nowhere").require()
    with pytest.raises(RunFolderError, match="is no run folder: it holds no recipe"):
        RunFolder(tmp_path).require()
    RunFolder(tmp_path / "new").check(TINY)
    assert not (tmp_path / "new").exists()  # looking writes nothing


def test_every_path_lies_in_the_folder_and_none_twice(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    properties = [name for name, value in vars(RunFolder).items() if isinstance(value, property)]
    paths = [getattr(folder, name) for name in properties if not name.startswith("has_")]
    paths += [folder.shards("a"), folder.ledger("node"), folder.meter_lock("node")]
    assert len(paths) > 15 and len(set(paths)) == len(paths)
    assert all(path.is_relative_to(folder.path) for path in paths)
    assert not folder.path.exists() and not folder.has_checkpoints
    (folder.checkpoints / "step-4").mkdir(parents=True)
    assert folder.has_checkpoints


@pytest.mark.parametrize("left", ["metrics.jsonl", "export/config.json", "checkpoints/step-4/manifest.json"])
def test_what_was_trained_belongs_to_its_recipe_also_where_its_checkpoints_are_gone(
    tmp_path: Path, left: str
) -> None:
    folder, other = RunFolder(tmp_path / "run"), load_recipe("tiny", ["train.learning_rate=1e-3"])
    folder.claim(TINY)
    folder.check(other)  # the control: nothing is trained yet
    (folder.path / left).parent.mkdir(parents=True, exist_ok=True)
    (folder.path / left).write_text("{}\n", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"train\.learning_rate=0\.005, this one has 0\.001"):
        folder.check(other)


def test_a_second_run_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with RunLock(folder):
        with pytest.raises(RunLockedError) as refused:
            RunLock(folder).__enter__()
        assert f"is in use by pid {os.getpid()} on {socket.gethostname()}; wait for it" in str(refused.value)
        assert "surely gone" not in str(refused.value)  # the kernel is certain
    with RunLock(folder):
        pass
    assert (tmp_path / ".lock").read_text() == ""


def test_where_the_record_alone_decides_the_line_says_how_to_overrule_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / ".lock").write_text('{"host": "another-node", "pid": 1, "started_s": null}')
    with pytest.raises(RunLockedError, match=r"in use by pid 1 on another-node; .*surely gone, delete"):
        RunLock(RunFolder(tmp_path)).__enter__()


def test_a_lock_that_cannot_be_made_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunLockedError, match=r"cannot be locked: .* is a symbolic link"):
        RunLock(RunFolder(tmp_path / "run")).__enter__()
    with pytest.raises(OSError, match="symbolic link"):
        OwnedLock(tmp_path / "run" / ".lock").__enter__()
