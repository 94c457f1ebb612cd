"""What a process says: INFO as it is and on rank 0 alone, warnings with the program's name on every rank."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from persianmind.common.log import configure_logging, print_line
from tests.support.launch import ROOT
from tests.support.log import logged

LOGGER = logging.getLogger("persianmind.some.module")


def speak() -> None:
    LOGGER.debug("for nobody")
    LOGGER.info("loss 1.0 [bold]not markup[/bold]")
    LOGGER.warning("two\nlines")
    LOGGER.error("سلام")


@pytest.mark.parametrize(
    ("rank", "out", "err"),
    [
        (
            0,
            "loss 1.0 [bold]not markup[/bold]\n",
            "persianmind: two lines\npersianmind: error: سلام\n",
        ),
        (1, "", "persianmind: rank 1: two lines\npersianmind: error: rank 1: سلام\n"),
    ],
)
def test_lines_of_a_rank(capsys: pytest.CaptureFixture[str], rank: int, out: str, err: str) -> None:
    configure_logging(rank)
    speak()
    assert capsys.readouterr() == (out, err)


# Writes to a terminal, loses it, and goes on.
LOST_TERMINAL = """
import os, pty, sys
from persianmind.common import log
from persianmind.common.log import leave_lost_terminal, print_line
wanted, (master, slave) = sys.argv[1], pty.openpty()
sys.stderr.flush()
for descriptor in (1, 2):
    os.dup2(slave, descriptor)
os.close(slave)
print_line("somebody reads this")
assert b"reads this" in os.read(master, 100)
if wanted == "alive":
    leave_lost_terminal()
    print_line("and this")
    assert b"and this" in os.read(master, 100)
os.close(master)
if wanted == "left":
    leave_lost_terminal()
    os.write(1, b"as a library does")
if wanted == "control":
    log._send_nowhere = lambda descriptor: os._exit(9)
print_line("nobody reads this")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize(("wanted", "code"), [("written", 0), ("left", 0), ("alive", 0), ("control", 9)])
def test_a_terminal_that_hung_up_ends_nothing(wanted: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LOST_TERMINAL, wanted], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == code


def test_a_reader_that_left_ends_nothing_and_a_full_disk_does() -> None:
    reads, writes = os.pipe()
    with os.fdopen(writes, "w") as stream:
        os.close(reads)
        print_line("nobody reads this", stream)
        print_line("nor this", stream)
    with Path("/dev/full").open("w") as full, pytest.raises(OSError, match="No space left"):
        try:
            print_line("lost", full)
        finally:
            os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that closing it is no error


def test_the_last_configuration_counts_and_nothing_is_said_twice(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        configure_logging(0)
    speak()
    assert capsys.readouterr().out.count("loss") == 1
    assert caplog.messages == []  # other libraries' root handlers do not repeat our lines


def test_unconfigured_it_is_an_ordinary_library(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(logging.INFO) as lines:
        speak()
    assert lines == ["loss 1.0 [bold]not markup[/bold]", "two\nlines", "سلام"]
    assert capsys.readouterr().out == ""


def test_other_libraries_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    configure_logging(0)
    assert (logging.getLogger().handlers, logging.getLogger().level) == before
    logging.getLogger("another").warning("theirs")
    assert "persianmind" not in capsys.readouterr().err
