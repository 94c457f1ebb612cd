"""What a process says: INFO as it is and on rank 0 alone, warnings with the program's name on every rank."""

from __future__ import annotations

import logging

import pytest

from persianmind.common.log import configure_logging
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
