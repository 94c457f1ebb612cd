"""No number in any file of a run stops the page or a command over it, whatever field it stands in.

Records are filled by looking at their models, so that a new field is tried as well. The trials are drawn from
a seed; a field and a number that failed once stand in FAILED.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from persianmind.checkpoint.commands import app as checkpoint_app
from persianmind.common import bounded
from persianmind.common.bounded import LARGEST_AMOUNT, LARGEST_COUNT
from persianmind.common.checksum import write_checked
from persianmind.common.errors import PersianMindError
from persianmind.data.manifest import Manifest
from persianmind.energy.commands import app as energy_app
from persianmind.publish.verify import verify_path
from persianmind.report.page import write_report
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results
from persianmind.run.records import RunResults
from persianmind.train.summary import summary_lines
from tests.checkpoint.helpers import two_checkpoints
from tests.report.built_run import build_run
from tests.report.parsed import parse, sections
from tests.report.test_damage import rewrite
from tests.report.test_hostile import assert_drawings_are_finite, files
from tests.support.filled import Place, filled, numbers, replaced

VALUES: list[Any] = [
    10**400, -(10**400), 10**30, 1e308, -1e308, 5e-324, -5e-324, 0, -0.0, -1, True, False, None, "9" * 401,
    LARGEST_COUNT, -LARGEST_COUNT, LARGEST_AMOUNT, -LARGEST_AMOUNT, [1e308], {"a": 10**400},
]  # fmt: skip
FEW, MANY, SEED = 4, 400, 20260301
FAILED: list[tuple[str, Place, Any]] = []


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every file that the page reads, and every field of results and data manifest filled."""
    folder = build_run(tmp_path_factory.mktemp("runs") / "run", nodes=("box1", "box2"))
    two_checkpoints(folder.checkpoints)
    write_checked(folder.results, filled(RunResults) | {"finished": True})
    (folder.data / "poems").mkdir(parents=True)
    write_checked(folder.data / "poems" / "manifest.json", filled(Manifest))
    folder.vocab.mkdir()
    vocabulary = {"base_vocab": 9, "added": 2, "pieces": [{"text": "a", "base_ids": [1], "count": 3}]}
    fertility = {"fertility": {"fa": {"words": 5, "before": 5.2, "after": 1.4}}}
    write_checked(folder.vocab / "expansion.json", {**vocabulary, **fertility})
    return folder.path


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def trials(run: Path, pattern: str, count: int, seed: int) -> list[tuple[Place, Any]]:
    """(field, number): every number of every field once, shuffled, the first `count`."""
    path = next(run.glob(pattern))
    trees = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if (
        path.suffix == ".jsonl") else [json.loads(path.read_text(encoding="utf-8"))]  # fmt: skip
    places = {place: None for tree in trees for place in numbers(tree)}
    pairs = [(place, value) for place in places for value in VALUES]
    random.Random(seed).shuffle(pairs)
    return pairs[:count]


def try_number(run: Path, pattern: str, place: Place, value: Any) -> None:
    """Puts it into every record of the file that has the field, under the page and the commands."""

    def change(tree: Any) -> Any:
        try:
            return replaced(tree, place, value)
        except (KeyError, IndexError, TypeError):
            return tree  # another kind of line

    for path in run.glob(pattern):
        rewrite(path, change)
    page = parse(write_report(run))
    assert {"commands", "recipe"} <= set(sections(page))
    assert_drawings_are_finite(page)
    for app, arguments in ((energy_app, ["report"]), (energy_app, ["report", "--json"]),
                           (energy_app, ["report", "--csv"]), (checkpoint_app, ["list"])):  # fmt: skip
        done = CliRunner().invoke(app, [*arguments, str(run)])
        assert done.exception is None, repr(done.exception)
    for read in (lambda: summary_lines(read_results(RunFolder(run))), lambda: verify_path(run)):
        named(read)


def named(action: Callable[[], object]) -> None:
    try:
        action()
    except PersianMindError as error:
        assert "\n" not in str(error)


PATTERNS = ["results.json", "metrics.jsonl", "energy/*.jsonl", "data/*/manifest.json",
            "checkpoints/*/manifest.json", "vocab/expansion.json"]  # fmt: skip


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_number_stops_the_page_or_a_command(run: Path, pattern: str, count: int) -> None:
    kept = {path: path.read_bytes() for path in run.glob(pattern)}
    failed = [(place, value) for name, place, value in FAILED if name == pattern]
    for place, value in failed + trials(run, pattern, count, SEED):
        for path, content in kept.items():
            path.write_bytes(content)
        print(f"seed {SEED}, {pattern}: {place} = {str(value)[:40]}")
        try_number(run, pattern, place, value)


def test_the_files_are_all_that_the_page_reads(run: Path) -> None:
    """The control: no file is left out, and the run without a hostile number has every section."""
    found = {path for pattern in PATTERNS for path in run.glob(pattern)}
    assert {*files(run)} - found == {run / "recipe.yaml"}
    expected = {"evaluation", "suites", "samples", "cost", "training", "vocabulary", "data", "checkpoints"}
    assert expected <= set(sections(parse(write_report(run))))


@pytest.mark.parametrize(
    ("pattern", "place", "value"),
    [("metrics.jsonl", ("useful_tokens",), 10**400), ("energy/*.jsonl", ("readings", 0, "joules"), 1e308)],
    ids=["401 digits", "1e308"],
)
def test_without_the_bound_a_number_would_stop_them(
    run: Path, pattern: str, place: Place, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "is_bounded", lambda value: True)
    with pytest.raises((AssertionError, ArithmeticError)):
        try_number(run, pattern, place, value)
