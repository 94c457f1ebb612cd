"""Every place that writes a file goes through common/atomic.py, or is known and named here."""

from __future__ import annotations

import ast

import pytest

from tests.support.launch import ROOT

# What opens a file for writing by itself, and who names or forgives its errors.
BY_THEMSELVES = {
    "checkpoint/store.py": "`together` names them (code 5)",
    "common/atomic.py": "the writers",
    "common/lock.py": "in `writing`",
    "common/log.py": "no file: the null device",
    "cluster/worker.py": "named there",
    "data/build/service.py": "in `writing`",
    "engine/deepspeed/files.py": "a save: `together` names them",
    "gpucheck/launch.py": "run_guarded names it",
    "gpucheck/runner.py": "run_guarded names it",
    "model/bases.py": "in `atomic_dir`",
    "model/download.py": "`_download` names it",
    "model/export/writer.py": "in `atomic_dir`",
    "launch/screen.py": "left out: its lines wait in memory",
    "text/quarantine.py": "in `writing`",
    "train/callbacks/save.py": "a save: `together` names them",
    "train/gpu_errors.py": "left out",
    "train/heartbeats.py": "left out by the watchdog",
    "vocab/count.py": "in `writing`",
    "cluster/package.py": "run_guarded names it",
    "gpucheck/shapes.py": "run_guarded names it",
    "gpucheck/timing.py": "no file: the kernel's own",
}
METHODS = {
    "write_text", "write_bytes", "save_file", "save_pretrained", "copyfile", "copy", "copy2", "copytree",
    "touch", "truncate", "SummaryWriter", "mkstemp", "NamedTemporaryFile",
}  # fmt: skip
OURS = {"write_text", "write_bytes"}  # called by name: common/atomic.py's
NO_FILE = {"copy", "copytree"}  # of dicts and the like, where the object is no module


def writes_by_itself(source: str) -> bool:
    """Whether a module opens a file for writing without common/atomic.py."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        is_method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in NO_FILE and not (is_method and ast.unparse(node.func).startswith("shutil.")):
            continue
        if name in METHODS and (is_method or name not in OURS):
            return True
        words = [ast.unparse(one) for one in (*node.args, *(one.value for one in node.keywords))]
        if name == "open" and any(
            word.strip("'\"") in {"w", "a", "x", "wb", "ab", "xb", "rb+", "r+", "wb+"} or "O_WRONLY" in word
            or "O_RDWR" in word
            for word in words
        ):  # fmt: skip
            return True
    return False


def test_every_place_that_writes_goes_through_the_writers_or_is_listed() -> None:
    package = ROOT / "persianmind"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if writes_by_itself(path.read_text(encoding="utf-8"))
    }
    assert found == set(BY_THEMSELVES)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.write_text('a')", True),
        ("with path.open('ab') as handle: pass", True),
        ("open(path, mode='w')", True),
        ("os.open(path, os.O_WRONLY | os.O_CREAT)", True),
        ("shutil.copy(a, b)", True),
        ("write_text(path, 'a')", False),
        ("path.open('rb')", False),
        ("tensors.copy()", False),
    ],
)
def test_control_what_the_search_finds(source: str, found: bool) -> None:
    assert writes_by_itself(source) is found
