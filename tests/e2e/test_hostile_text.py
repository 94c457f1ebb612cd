"""Every command over files whose every string is an attack on the terminal: all of it comes out as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from persianmind.chat.dialogue_loop import answer_once
from persianmind.chat.screen import Screen
from persianmind.checkpoint.manifest import StoredCheckpoint, read_manifest, write_manifest
from persianmind.cli import app
from persianmind.cluster.jobs import job_text
from persianmind.cluster.jobs import show as show_job
from persianmind.common import log
from persianmind.common.console import run_guarded
from persianmind.common.log import configure_logging, print_text
from persianmind.evaluate.commands import _show as show_outcomes
from persianmind.evaluate.session import Outcomes, TaskOutcome
from persianmind.recipe.loading import load_recipe, write_run_recipe
from persianmind.run.evaluation_records import NotRun, SuiteResult
from persianmind.run.folder import RunFolder
from persianmind.run.log import update_results
from persianmind.train.command import show_finished
from tests.checkpoint.helpers import two_checkpoints
from tests.common.test_printing import Terminal
from tests.data.helpers import make_bpe, sentences, write_jsonl
from tests.report.built_run import build_run
from tests.report.test_hostile import with_text
from tests.support.hostile import HOSTILE, is_calm, steering

NAME = HOSTILE.replace("/", "|")  # as a file may be called
SUITE = SuiteResult(
    suite=HOSTILE, task=HOSTILE, metric=HOSTILE, value=0.5, n=3, settings={"perturbation": HOSTILE}
)
NOT_RUN = NotRun(suite=HOSTILE, task=HOSTILE, reason=HOSTILE)
OUTCOMES = Outcomes([TaskOutcome(HOSTILE, cast(Any, None), None, [], [SUITE])], [NOT_RUN])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints; every string of its files is hostile, and so is its own name."""
    folder = build_run(tmp_path_factory.mktemp("runs") / NAME, nodes=("box1", "box2"))
    two_checkpoints(folder.checkpoints)
    with_text(folder.path, HOSTILE)
    for kept in folder.path.rglob("*.original"):
        kept.unlink()
    update_results(folder, results=[SUITE], not_run=[NOT_RUN])
    for path in folder.checkpoints.glob("step-*"):
        found = read_manifest(path)
        planted = {**vars(found), "metadata": {"stage": HOSTILE, HOSTILE: HOSTILE}, "saved_at": HOSTILE}
        write_manifest(path, StoredCheckpoint(**planted))
    return folder.path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound, bad and doubled records in files with hostile names, fields and texts."""
    folder = tmp_path_factory.mktemp("corpus")
    records: list[dict[str, Any]] = [{"text": f"{text} {HOSTILE}"} for text in sentences(20)]
    write_jsonl(folder / f"a{NAME}.jsonl", [*records, records[3], {HOSTILE: 1}, {"text": None, HOSTILE: ""}])
    (folder / f"b{NAME}.jsonl").write_bytes(b"\xff" + HOSTILE.encode())
    (folder / f"c{NAME}.exe").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bpe(tmp_path_factory.mktemp("tokenizers") / NAME)


@pytest.fixture
def spoken(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command as the console script does; what it printed, both streams."""
    configure_logging()

    def call(*arguments: object) -> str:
        run_guarded(lambda: app([str(one) for one in arguments], standalone_mode=False))
        printed = capsys.readouterr()
        return printed.out + printed.err

    return call


OF_A_RUN = [
    "checkpoint list", "checkpoint list --json", "checkpoint verify", "checkpoint inspect",
    "checkpoint inspect --json", "energy report",
    "energy report --json", "energy report --csv", "report", "report --json", "verify", "verify --json",
    "export --sweep=1", "chat", "evaluate", "data inspect",
]  # fmt: skip


@pytest.mark.parametrize("command", OF_A_RUN)
def test_commands_over_a_run(
    command: str, run: Path, spoken: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    names, _, option = command.partition(" --")
    printed = spoken(*names.split(), run, *([f"--{option}"] if option else []))
    assert is_calm(printed) and "[red]" in printed, printed
    if option == "json":
        json.loads(printed.splitlines()[0])


@pytest.mark.parametrize(
    ("command", "options"),
    [("data check", "--source"), ("data show", ""), ("data stats", "--source"), ("data build", "--source")],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_commands_over_data(
    command: str, options: str, as_json: bool, corpus: Path, tokenizer: Path, spoken: Callable[..., str],
    tmp_path: Path,
) -> None:  # fmt: skip
    needs = [] if command == "data check" else ["--tokenizer", tokenizer]
    more = ["--out", tmp_path / NAME] if command == "data build" else []
    json_flag = ["--json"] if as_json else []
    wild = ["data.max_bad_record_ratio=1"]
    printed = spoken(*command.split(), *options.split(), corpus, *needs, *more, *json_flag, *wild)
    assert is_calm(printed), printed
    if more and not as_json:
        assert is_calm(spoken("data", "inspect", *more[1:]))


def test_a_vocabulary(tokenizer: Path, corpus: Path, spoken: Callable[..., str], tmp_path: Path) -> None:
    text = tmp_path / f"{NAME}.txt"
    text.write_text("\n".join(sentences(30)), encoding="utf-8")
    for path, said in ((text, "tokens/word"), (next(corpus.glob("a*")), "records are bad")):
        printed = spoken("vocab", "report", "--base", tokenizer, "--expanded", tokenizer, "--text", path)
        assert is_calm(printed) and said in printed


@pytest.mark.parametrize("command", ["plan", "doctor", "nothing"])
def test_recipes_flags_and_environment(
    command: str, tmp_path: Path, spoken: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSIANMIND_CACHE", str(tmp_path / NAME))
    path = tmp_path / f"{NAME}.yaml"
    path.write_text(json.dumps({"name": HOSTILE, "base": HOSTILE, HOSTILE: 1}))
    for arguments in ([path], [path, HOSTILE], [f"--{HOSTILE}"], [HOSTILE]):
        assert is_calm(spoken(command, *arguments))


def test_results_jobs_and_the_end_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    for as_json in (False, True):
        show_outcomes(OUTCOMES, None, as_json)
        show_job({"run": HOSTILE, "status": HOSTILE}, as_json=as_json)
    print_text(job_text(f"\x1b[36m(worker)\x1b[0m {HOSTILE}"), end="")
    folder = RunFolder(run)
    write_run_recipe(folder.recipe, recipe := load_recipe("tiny", ["name=other"]))
    show_finished(folder, recipe, lambda _: folder.report)
    printed = capsys.readouterr()
    assert not steering(printed.out) and is_calm(printed.err)
    assert "\n(worker) a[/x]" in printed.out


class Says:
    """Stands for a conversation whose model answers with the attack."""

    def ask(self, text: str) -> Any:
        yield from HOSTILE


def test_an_answer_on_a_terminal() -> None:
    out = Terminal()
    answer_once({"m": Says()}, "x", Screen(out))  # type: ignore[dict-item]
    assert not steering(out.getvalue()) and "[/x] [red]" in out.getvalue()


def test_without_the_one_place_it_comes_out(
    run: Path, spoken: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same command over the same run."""
    assert is_calm(spoken("energy", "report", run))
    monkeypatch.setattr("persianmind.common.console.one_line", lambda text: text)
    monkeypatch.setattr(log, "printable", lambda text: text)
    assert steering(spoken("energy", "report", run))
