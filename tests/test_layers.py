"""The layers of pyproject.toml are kept, and the tool that checks them notices when they are not."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.launch import BIN, ROOT

MAX_LINES = 300


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's Python files and pyproject.toml, to be changed."""
    for path in (ROOT / "persianmind").rglob("*.py"):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "lint-imports"), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def plant(root: Path, module: str, line: str) -> None:
    with (root / "persianmind" / module).open("a", encoding="utf-8") as handle:
        handle.write(f"\n{line}\n")


def test_the_layers_are_kept(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("common/poll.py", "import persianmind.train.loop", "Lower layers know nothing of higher ones"),
        ("checkpoint/store.py", "import persianmind.engine.groups", "Lower layers know nothing"),
        ("train/loop.py", "import persianmind.engine.deepspeed.engine", "Only its engine knows deepspeed"),
        ("train/loop.py", "import deepspeed", "Only its engine knows deepspeed"),
        ("train/run.py", "def planted() -> None:\n    import ray", "Only the cluster knows Ray"),
    ],
)
def test_a_planted_import_is_noticed(copy: Path, module: str, line: str, broken: str) -> None:
    """Also one that is hidden in a function."""
    plant(copy, module, line)
    done = lint_imports(copy)
    assert done.returncode != 0
    assert any(text.startswith(broken) and "BROKEN" in text for text in done.stdout.splitlines()), done.stdout


def test_a_new_package_without_a_layer_is_noticed(copy: Path) -> None:
    (copy / "persianmind" / "extra").mkdir()
    (copy / "persianmind" / "extra" / "__init__.py").write_text('"""No layer."""\n')
    assert lint_imports(copy).returncode != 0


def test_public_names_are_unique_and_files_short() -> None:
    """One word, one meaning: what an engineer greps for is defined once (`main` is a convention)."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "persianmind").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= MAX_LINES, path
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path))
    assert len(found) > 500
    assert {name: paths for name, paths in found.items() if len(paths) > 1 and name != "main"} == {}
