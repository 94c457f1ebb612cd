"""The processes of benchmarks/train.py find the packages that the caller names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lib.train_process import ROOT, part_environment


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a package that no Python has."""
    folder = tmp_path / "site"
    (folder / "a_peer").mkdir(parents=True)
    (folder / "a_peer" / "__init__.py").write_text("NAME = 'peer'\n", encoding="utf-8")
    return folder


def _imports(environment: dict[str, str], folder: Path) -> bool:
    code = "import a_peer, benchmarks.lib.train_process; print(a_peer.NAME)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout == "peer\n"


def test_a_peer_on_the_callers_pythonpath_is_found(package: Path, tmp_path: Path) -> None:
    given = {**os.environ, "PYTHONPATH": str(package)}
    assert _imports(part_environment(given, [], 1), tmp_path)


def test_a_peer_in_a_site_is_found_from_any_folder(package: Path, tmp_path: Path) -> None:
    relative = os.path.relpath(package)
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert _imports(part_environment(given, [relative], 1), tmp_path)


def test_without_either_it_is_not(package: Path, tmp_path: Path) -> None:
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert not _imports(part_environment(given, [], 1), tmp_path)


def test_this_checkout_comes_first_and_once(package: Path) -> None:
    given = {"PYTHONPATH": f"{package}{os.pathsep}{ROOT}{os.pathsep}"}
    paths = part_environment(given, [], 2)["PYTHONPATH"].split(os.pathsep)
    assert paths == [str(ROOT), str(package)]
    assert part_environment(given, [], 2)["OMP_NUM_THREADS"] == "2"
