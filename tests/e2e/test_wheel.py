"""A wheel is whole: what lies beside the package in the tree is in it; its commands run from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from persianmind.common import paths
from tests.support.launch import ROOT

pytestmark = pytest.mark.integration
BUILT_FROM = ("persianmind", "launcher", "ds_configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves its own files beside the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for site-packages."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "persianmind", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(installed), "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def test_every_file_of_the_tree_is_in_it_once(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tree = [path for path in (ROOT / "persianmind").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {str(path.relative_to(ROOT)) for path in tree} <= {*names}
    for folder, inside in (("launcher/recipes", "recipes"), ("ds_configs", "ds_configs")):
        shipped = {Path(name).name for name in names if name.startswith(f"persianmind/shipped/{inside}/")}
        assert shipped == {path.name for path in (ROOT / folder).iterdir()}
        for name in shipped:
            packed = zipfile.ZipFile(wheel).read(f"persianmind/shipped/{inside}/{name}")
            assert packed == (ROOT / folder / name).read_bytes()
    assert not [name for name in names if name.startswith(("launcher", "tests", "ds_configs"))]


def test_the_tree_has_one_copy() -> None:
    assert not (ROOT / "persianmind" / "shipped").exists()
    assert paths.shipped_folder("recipes", "launcher/recipes") == ROOT / "launcher" / "recipes"


def test_commands_from_any_folder(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "config", "show", "demo", "--json")
    assert shown.returncode == 0, shown.stderr
    assert {one["key"] for one in json.loads(shown.stdout)["values"]} > {"base", "train.learning_rate"}
    done = run(installed, tmp_path, "doctor", "tiny", "--json")
    found = {one["name"]: one["level"] for one in json.loads(done.stdout)["checks"]}
    assert found["engine config"] == "ok", done.stdout
    refused = run(
        installed, tmp_path, "submit", "tiny", "--address", "http://127.0.0.1:1", "--cpu-workers", "1"
    )
    assert refused.returncode == 2 and "only an installed package" in refused.stderr, refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_its_recipes_a_wheel_would_say_so(installed: Path, tmp_path: Path) -> None:
    """The control."""
    bare = tmp_path / "site"
    shutil.copytree(installed, bare, ignore=shutil.ignore_patterns("shipped"))
    assert run(bare, tmp_path, "config", "show", "demo").returncode == 2


@pytest.mark.more
def test_it_trains(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "train", "tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "tiny" / "export" / "config.json").is_file()
    assert str(ROOT) not in (tmp_path / "runs" / "tiny" / "run.log").read_text(encoding="utf-8")
