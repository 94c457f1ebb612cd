"""Every command of docs/cluster.md is run, or parsed, or at least read by a shell."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from persianmind.cluster.arguments import SubmitArguments
from persianmind.cluster.command import submit_app
from persianmind.common.console import invoke
from persianmind.train.command import app as train_app
from tests.cluster.page import page_commands, port_rows, printed

# How each command is tested, by its beginning; a new one has to be entered here. "run": on boxes, by
# test_by_hand.py or test_hostfile.py, with another recipe where the page's wants GPUs. "parsed": by what it
# starts. "read": by a shell alone.
HOW = {
    "python cluster/submit.py --local": "run",
    "(umask 077": "run",
    ". .venv/bin/activate": "run",
    "ray_start --head": "run",
    "ray_start --node-ip-address": "run",
    "python cluster/submit.py --address": "run",
    "python cluster/submit.py status": "run",
    "python cluster/submit.py logs": "run",
    "python cluster/submit.py stop": "run",
    "ray job submit": "run",
    "ray status": "run",
    "printf": "run",
    "deepspeed --hostfile hosts --no_ssh": "run",
    "deepspeed --hostfile hosts launcher": "parsed",
    "deepspeed launcher": "parsed",
    "ray up": "parsed",  # test_manifests.py reads its file as `ray up` does
    "sudo ": "read",  # packages, mounts and exports of a real machine
    "echo '/mnt": "read",
    "for box": "read",  # ssh
    "ssh ": "read",
    "pytest ": "read",
    "PERSIANMIND_LONG_TESTS=1 pytest": "read",
}


def how_of(command: str) -> str:
    """Raises ValueError where none or several beginnings fit."""
    (found,) = {beginning for beginning in HOW if command.startswith(beginning)}
    return HOW[found]


def test_every_command_is_tested_in_one_way() -> None:
    counts = Counter(how_of(command) for command in page_commands())
    assert counts == {"run": 14, "parsed": 3, "read": 9}
    with pytest.raises(ValueError):
        how_of("kubectl apply -f x.yaml")
    assert [one for one in HOW if not any(command.startswith(one) for command in page_commands())] == []


def test_what_is_said_to_be_run_is_run() -> None:
    tests = "".join(
        Path(__file__).with_name(name).read_text()
        for name in ("test_by_hand.py", "by_hand.py", "test_hostfile.py")
    )
    missing = [begin for begin, how in HOW.items() if how == "run" and f'printed("{begin}' not in tests]
    assert missing == []


@pytest.mark.parametrize("command", page_commands())
def test_a_shell_reads_it(command: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_flags_and_recipes_exist() -> None:
    commands = [one.partition("-- ")[2] or one for one in page_commands() if "cluster/submit.py" in one]
    parsed = 0
    for command in commands:
        words = shlex.split(command.replace("...", ""))[2:]
        if words[0] in ("status", "logs", "stop"):
            continue
        given = invoke(submit_app, words, prog="submit.py")
        assert isinstance(given, SubmitArguments)
        given.train.unresolved_request()
        parsed += 1
    assert parsed == 3


def test_the_launchers_flags_exist() -> None:
    commands = [one for one in page_commands() if "launcher/train.py" in one]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.replace("...", ""))
        given = invoke(train_app, words[words.index("launcher/train.py") + 1 :], prog="train.py")
        given.unresolved_request()


def test_every_printed_start_names_its_address() -> None:
    starts = [one for one in page_commands() if re.match(r"ray_start|ray start ", one)]
    assert len(starts) >= 2
    assert [one for one in starts if "--node-ip-address=" not in one] == []


def test_the_table_of_ports_is_read() -> None:
    rows = port_rows()
    assert len(rows) >= 10
    assert {row.address for row in rows} <= {"loopback", "node", "all"}
    assert {8265, 6379, 10001, 52365} <= {row.first for row in rows}


def test_printed_takes_one_command_alone() -> None:
    with pytest.raises(ValueError):
        printed("ray_start")
