"""A child process that runs a module of ours: how it is started, what it is asked, how it ends with its
parent.

`python -m MODULE SETTING`, where SETTING is one JSON object; its key `parent` is the pid of the process that
started the child.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from persianmind.common.paths import PROJECT_ROOT

PR_SET_PDEATHSIG = 1


def start_child(
    module: str, setting: Mapping[str, Any], *, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Starts `module` with a setting (plain JSON).

    Args:
        environment: variables beside, or instead of, those of this process.
        options: Popen's.

    Raises:
        OSError: no process could be made.
    """
    path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", module, json.dumps({**setting, "parent": os.getpid()})],
        env={**os.environ, **(environment or {}), "PYTHONPATH": path},
        **options,
    )


def read_setting(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The child's side: what it was asked."""
    given = sys.argv[1:] if arguments is None else arguments
    setting: dict[str, Any] = json.loads(given[0])
    return setting


def parent_is_gone(setting: Mapping[str, Any]) -> bool:
    """Whether the process that started this one has ended."""
    return setting.get("parent") is not None and os.getppid() != setting["parent"]


def die_with_parent() -> None:
    """Has the kernel kill this process with the one that started it (Linux; elsewhere `parent_is_gone`
    tells)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def end_child(process: subprocess.Popen[bytes], within_s: float) -> int:
    """Asks a child to end, kills it once `within_s` is over; returns its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
