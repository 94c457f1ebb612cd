"""Each suite is held against its own numbers of tests/budget.json."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.budget import BUDGETS, kind_of
from tests.support.launch import ROOT

KINDS = {"unit", "integration", "more", "more_with_ranks"}


def test_every_suite_of_the_makefile_has_a_kind_of_its_own() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    marks = re.findall(r'-m "([^"]*not long)"', makefile)
    assert len(marks) == len(KINDS)
    assert {kind_of(one) for one in marks} == KINDS


@pytest.mark.parametrize("folder", json.loads(BUDGETS.read_text(encoding="utf-8")))
def test_budgets_are_of_these_kinds(folder: str) -> None:
    assert json.loads(BUDGETS.read_text(encoding="utf-8"))[folder].keys() <= KINDS
