"""Every command of ours in README and docs is parsed by the parser that it would meet, and counted."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from persianmind.cli import app as persianmind_app
from persianmind.cluster.arguments import JobArguments, SubmitArguments
from persianmind.cluster.command import COMMANDS as JOB_COMMANDS
from persianmind.cluster.command import job_app, submit_app
from persianmind.cluster.commands import with_recipe_flag
from persianmind.common.console import invoke
from persianmind.common.errors import UsageError
from persianmind.launch.ranks import RANK_MODULE
from persianmind.train.arguments import TrainArguments
from persianmind.train.command import app as train_app
from tests.support.launch import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "README.fa.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TRAIN_SCRIPT, SUBMIT_SCRIPT = "launcher/train.py", "cluster/submit.py"


def code_lines(text: str) -> list[str]:
    """Lines of fenced and indented blocks, those that go on in the next one joined."""
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [block for kind, block in fenced if kind in ("", "sh", "bash")]
    indented = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    joined = re.sub(r"\\\n\s*", " ", "\n".join([*blocks, indented]))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def words_of(line: str) -> list[str]:
    """Without comments, a prompt sign, the venv's path, other ways to say it and what stands for more
    arguments; what may be left out is taken in, and N is a number."""
    plain = re.sub(r"(?<!\S)\[([^]]*)\]", r"\1", line.removeprefix("$ ").partition(" | ")[0])
    words = shlex.split(re.sub(r"(?<=[= ])N\b", "1", plain), comments=True)
    return [word.removeprefix(".venv/bin/") for word in words if word != "..."]


def parse_persianmind(words: Sequence[str]) -> None:
    command: Any = typer.main.get_command(persianmind_app)
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name, command, rest = command.resolve_command(typer.Context(command), rest)
        if name == "submit":
            parse_submit(with_recipe_flag(rest))
            return
    check_overrides(command.make_context("persianmind", rest).params.get("overrides"))


def check_overrides(given: Sequence[str] | None) -> None:
    assert all("=" in one for one in given or ())


def parse_submit(words: Sequence[str]) -> None:
    given = invoke(job_app if words[0] in JOB_COMMANDS else submit_app, words, SUBMIT_SCRIPT)
    assert isinstance(given, SubmitArguments | JobArguments)
    if isinstance(given, SubmitArguments):
        check_overrides(given.train.overrides)


def parse_script(script: str, words: Sequence[str]) -> None:
    """What a launcher starts."""
    if script == "persianmind":
        parse_persianmind(words)
        return
    assert script in (TRAIN_SCRIPT, RANK_MODULE), script
    given = invoke(train_app, words, script)
    assert isinstance(given, TrainArguments)
    check_overrides(given.overrides)


def parse_deepspeed(words: Sequence[str]) -> None:
    from deepspeed.launcher.runner import parse_args

    given = parse_args(list(words))
    parse_script(given.user_script, given.user_args)


def parse_torchrun(words: Sequence[str]) -> None:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(list(words))
    parse_script(given.training_script, given.training_script_args)


def parse_python(words: Sequence[str]) -> None:
    script, *rest = words
    if script == SUBMIT_SCRIPT:
        parse_submit(rest)
    elif script == TRAIN_SCRIPT:
        parse_script(script, rest)
    elif script == "-m":
        assert importlib.util.find_spec(rest[0]), rest
    else:
        assert (ROOT / script).is_file(), script


def parse_make(words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        assert "=" in word or re.search(rf"^{word}:", makefile, flags=re.MULTILINE), word


PARSERS: dict[str, Callable[[Sequence[str]], None]] = {
    "persianmind": parse_persianmind,
    "deepspeed": parse_deepspeed,
    "torchrun": parse_torchrun,
    "srun": lambda words: parse_torchrun(words[1:]),
    "python": parse_python,
    "make": parse_make,
}
# Of typer, whose class for wrong flags lies in a private module, and of argparse.
WRONG_FLAGS = (typer.BadParameter.__mro__[1], SystemExit)
FOUND = [
    pytest.param(words[0], words[1:], id=f"{page.relative_to(ROOT)}: {line[:60]}")
    for page in PAGES
    for line in code_lines(page.read_text(encoding="utf-8"))
    if line.split()[0].removeprefix(".venv/bin/") in PARSERS or line.startswith("$ ")
    for words in [words_of(line)]
]


@pytest.mark.parametrize(("program", "words"), FOUND)
def test_command_is_one(program: str, words: list[str]) -> None:
    PARSERS[program](words)


def test_their_number_is_known() -> None:
    assert Counter(one.values[0] for one in FOUND) == {
        "persianmind": 130,
        "python": 13,
        "make": 11,
        "deepspeed": 6,
        "torchrun": 2,
        "srun": 1,
    }


def test_the_persian_pages_are_among_them() -> None:
    """README.fa.md has the sections and commands of README.md; the way from text to model has its own."""
    english, persian = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.fa.md"))
    assert len(re.findall("^## ", persian, flags=re.MULTILINE)) == len(
        re.findall("^## ", english, flags=re.MULTILINE)
    )
    assert code_lines(persian) == [line.replace("Hello", "سلام") for line in code_lines(english)]
    for page in (ROOT / "docs" / "fa").glob("*.md"):
        commands = [line for line in code_lines(page.read_text(encoding="utf-8")) if "persianmind" in line]
        assert commands, page.name


@pytest.mark.parametrize(
    "line",
    [
        "persianmind train --recipe tiny",
        "persianmind tran tiny",
        "deepspeed launcher/train.py --deepspeed x.json --epochs 3",
        "torchrun --nproc-per-node 2 -m another.module",
        "python cluster/submit.py stat x",
        "make tests",
    ],
)
def test_a_command_that_is_none_is_noticed(line: str) -> None:
    """The control."""
    program, *words = words_of(line)
    with pytest.raises((UsageError, AssertionError, *WRONG_FLAGS)):
        PARSERS[program](words)


def test_the_slurm_script_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    (script,) = [one for one in re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL) if "#SBATCH" in one]
    check = partial(subprocess.run, ["bash", "-n"], text=True, capture_output=True, check=False)
    assert check(input=script).returncode == 0
    assert check(input=script.replace(")", "")).returncode != 0  # the control
    directives = [line.split() for line in script.splitlines() if line.startswith("#SBATCH ")]
    assert directives and all(re.fullmatch(r"--[a-z-]+=\S+", one) for line in directives for one in line[1:])
