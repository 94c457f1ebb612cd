from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from persianmind.common.checkout import source_commit


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit of one file."""
    (tmp_path / "a.py").write_text("1\n")
    who = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    for arguments in (("init", "-q"), ("add", "a.py"), (*who, "commit", "-q", "-m", "one")):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    source_commit.cache_clear()
    return tmp_path


def test_the_commit_of_a_checkout(checkout: Path) -> None:
    head = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout
    assert len(source_commit(checkout)) == 12 and head.startswith(source_commit(checkout))


def test_files_that_differ_from_it_are_said_and_new_ones_are_not(checkout: Path) -> None:
    (checkout / "run.log").write_text("new\n")
    assert not source_commit(checkout).endswith("+")
    source_commit.cache_clear()
    (checkout / "a.py").write_text("2\n")
    assert source_commit(checkout).endswith("+")


def test_an_installed_package_and_a_machine_without_git_have_none(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_commit(tmp_path / "site-packages") == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_commit(checkout) == ""
