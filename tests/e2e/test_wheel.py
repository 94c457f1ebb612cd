"""A wheel is whole: what lies beside the package in the tree is in it; its commands run from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from persianmind.common import paths
from tests.support.launch import BIN, ROOT
from tests.support.newcomer import walk, write_own_files

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


def off_the_checkout() -> dict[str, str]:
    """This environment as it is where no checkout is on the path."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment: the wheel is installed in it by pip, what the wheel needs
    is lent to it from this one, and nothing of the checkout is there."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    # With the checkout on its path pip would find the egg-info there and call the wheel installed.
    subprocess.run([*pip, str(wheel)], env=off_the_checkout(), check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    deepspeed = (BIN / "deepspeed").read_text(encoding="utf-8").splitlines()
    (folder / "bin" / "deepspeed").write_text("\n".join([f"#!{python}", *deepspeed[1:]]), encoding="utf-8")
    (folder / "bin" / "deepspeed").chmod(0o755)
    return folder / "bin"


@pytest.mark.more
@pytest.mark.timeout(1800)
def test_the_newcomers_way_in_a_bare_environment(bare: Path, tmp_path: Path) -> None:
    """From an empty folder with her files in it; the checkout is on no path."""
    environment = off_the_checkout() | {
        "DS_ACCELERATOR": "cpu",
        "PATH": f"{bare}:/usr/local/bin:/usr/bin:/bin",
    }
    where = [str(bare / "python"), "-c", "import persianmind; print(persianmind.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(bare.parent)
    write_own_files(tmp_path)
    walk(tmp_path, [str(bare / "persianmind")], environment)
    assert str(ROOT) not in (tmp_path / "runs" / "mine" / "run.log").read_text(encoding="utf-8")
