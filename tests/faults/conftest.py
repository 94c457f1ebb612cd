"""What fault tests share: a fleet of ranks, and run folders in which everything is prepared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.helpers import COUNTS, prepared_copy
from tests.support.launch import Launched


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Forks ranks for every test of this folder."""
    one = Fleet()
    yield one
    one.close()


@pytest.fixture
def fresh(tmp_path: Path, tiny_run: Launched) -> Path:
    """A run folder in which everything is prepared and nothing trained."""
    return prepared_copy(tiny_run.run, tmp_path / "run")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The fault table, as far as this session ran it."""
    if COUNTS:
        terminalreporter.section("faults: passed / injected")
        for line, (passed, asked) in COUNTS.items():
            terminalreporter.write_line(f"{line}: {passed} / {asked}")
