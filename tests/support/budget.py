"""A pytest plugin: how long the tests of each folder took, and a failure where that is twice its budget.

Budgets are seconds of test time, set-up included, on two cores (tests/budget.json: for each folder a number
for its unit tests, for its integration tests, and of `make test-more` for those of one process and for those
with ranks). What is over is said; only `GROSS` times as much fails, because machines differ. One that is
known to be slower sets $PERSIANMIND_TEST_SLOWNESS.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

GROSS = 2.0
BUDGETS = Path(__file__).resolve().parents[1] / "budget.json"


class TimeBudget:
    """Sums up the reports of one session (of all its workers)."""

    def __init__(self, kind: str, whole: bool) -> None:
        self.kind = kind
        self.whole = whole
        self.seconds: dict[str, float] = defaultdict(float)
        slowness = float(os.environ.get("PERSIANMIND_TEST_SLOWNESS", "1"))
        self.budgets: dict[str, float] = {
            folder: kinds.get(kind, 0.0) * slowness
            for folder, kinds in json.loads(BUDGETS.read_text(encoding="utf-8")).items()
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        parts = report.nodeid.partition("::")[0].split("/")
        self.seconds[parts[1] if len(parts) > 2 else "."] += report.duration

    @property
    def exceeded(self) -> list[str]:
        """Folders over their budget; only a whole suite is held against it."""
        return self._over(1.0)

    def _over(self, times: float) -> list[str]:
        over = [one for one, used in self.seconds.items() if used > times * self.budgets.get(one, 0.0)]
        return over if self.whole else []

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._over(GROSS) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.whole:
            return
        terminalreporter.section(f"time per folder, s ({self.kind})")
        for folder, used in sorted(self.seconds.items(), key=lambda item: -item[1]):
            over = "  OVER ITS BUDGET: make it faster, or move what takes minutes to `make test-more`"
            allowed = self.budgets.get(folder, 0.0)
            terminalreporter.write_line(
                f"{folder:12} {used:7.1f} of {allowed:5.0f}{over if folder in self.exceeded else ''}"
            )


def kind_of(marks: str) -> str:
    """Which number of a folder counts, by the suite's `-m`."""
    of_one_process = "not integration" in marks
    if marks.startswith("more"):
        return "more" if of_one_process else "more_with_ranks"
    return "unit" if of_one_process else "integration"


def pytest_configure(config: pytest.Config) -> None:
    """Active in the process that collects the reports."""
    if hasattr(config, "workerinput"):
        return
    marks = config.option.markexpr
    kind = kind_of(marks)
    whole = bool(marks) and not config.args_source.name.startswith("ARGS")
    config.pluginmanager.register(TimeBudget(kind, whole), "time-budget")
