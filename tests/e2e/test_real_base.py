"""A base that knows English: some steps of Persian with English replay, through the real launcher, and the
same steps without the replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.launch import Launched, launch

FEW = (
    "stages.0.tokens=6144",
    "stages.1.tokens=1024",
    "stages.2.tokens=1024",
    "heldout.max_characters=2500",
    "vocab.new_tokens=1000",
    "evaluate.prompts=[]",
    "export.enabled=false",
)
# The same samples in number, none of them English: what the recipe's replay is there to prevent.
NO_REPLAY = (
    "stages.0.sources={poems: 0.8, messages: 0.2}",
    "stages.1.sources={translate: 1.0}",
    "stages.2.sources={interpret: 1.0}",
)


def train(folder: Path, *overrides: str) -> Launched:
    """The demo's recipe with few steps, over SmolLM2-135M."""
    launched = launch("--recipe", "demo", "--output", str(folder), *FEW, *overrides, ranks=2, timeout_s=580)
    assert launched.code == 0, launched.text
    return launched


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    return train(tmp_path_factory.mktemp("real") / "run")


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.timeout(600)
def test_persian_is_learned_and_english_kept(run: Launched) -> None:
    _, first, *_, last = run.stages  # the base comes first
    assert run.bits(last, "fa") < run.bits(first, "fa")
    assert run.bits(last, "en") < 0.995 * run.bits("base", "en")


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.timeout(1200)
def test_control_without_the_replay_english_is_not_kept_as_well(run: Launched, tmp_path: Path) -> None:
    """Measured: base 0.9422; with replay 0.9264, without 0.9420."""
    control = train(tmp_path / "control", *NO_REPLAY)
    last = run.stages[-1]
    assert run.bits(last, "en") < 0.995 * control.bits(last, "en")
