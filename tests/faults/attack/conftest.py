"""The run that nothing disturbs, and the kept times of its phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.attack.attempts import ForkedAttempt, phase_seconds
from tests.faults.attack.line import Observer, attack_recipe, stage_ends
from tests.faults.fleet import Fleet
from tests.support.launch import Launched

# Of the attack's recipe; asserted below.
STAGE_ENDS = {"pretrain": 16, "instruct-1": 23, "instruct-2": 30}


@dataclass(frozen=True)
class Target:
    """What is attacked: a recipe, its undisturbed run, and how long each phase of it takes."""

    recipe: Path
    whole: Launched
    seconds: dict[str, float]

    def observer(self, run: Path) -> Observer:
        return Observer(run, STAGE_ENDS)


@pytest.fixture(scope="session")
def target(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Target:
    folder = tmp_path_factory.mktemp("attack")
    recipe = attack_recipe(folder)
    attempt = ForkedAttempt(fleet, recipe, folder / "run")
    seconds = phase_seconds(attempt, Observer(folder / "run", STAGE_ENDS))
    whole = attempt.finish()
    assert whole.code == 0, whole.text
    assert stage_ends(whole) == STAGE_ENDS
    return Target(recipe, whole, seconds)


@pytest.fixture
def attempts(fleet: Fleet, target: Target, tmp_path: Path) -> Callable[..., ForkedAttempt]:
    """Starts the command, each time on the same folder."""

    def start(*overrides: str, ranks: int = 2) -> ForkedAttempt:
        return ForkedAttempt(fleet, target.recipe, tmp_path / "run", *overrides, ranks=ranks)

    return start
