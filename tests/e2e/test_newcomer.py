"""The way of somebody with text of her own, from nothing to a conversation: at most six commands, and no line
on the screen that is not ours (tests/e2e/test_wheel.py goes it from a wheel)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.launch import ROOT
from tests.support.newcomer import MOST_COMMANDS, WAY, foreign_lines, walk, write_own_files


def test_the_way_is_short() -> None:
    assert len(WAY) <= MOST_COMMANDS
    assert [WAY[0].split()[0], WAY[-1].split()[0]] == ["init", "chat"]


@pytest.mark.parametrize(
    ("command", "out", "err"),
    [
        ("train", "[2026-01-01 00:00:00,000] [INFO] [launch.py:152:main] WORLD INFO DICT: {}\n", ""),
        ("train", "Setting ds_accelerator to cpu (auto detect)\n", ""),
        ("check", "Loading weights:  50%|\n", ""),
        ("watch", "mine: done, step 3/3\nTime to load fused_adam op: 0.1 seconds\n", ""),
        ("chat", "سلام\n", "/usr/lib/python3/x.py:3: FutureWarning: this will go\n"),
    ],
)
def test_a_line_of_others_is_noticed(command: str, out: str, err: str) -> None:
    """The control."""
    assert foreign_lines(command, out, err)


@pytest.mark.integration
@pytest.mark.more
@pytest.mark.timeout(1800)
def test_from_files_to_a_conversation(tmp_path: Path) -> None:
    write_own_files(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
    walk(tmp_path, [sys.executable, "-m", "persianmind"], environment)
