"""A part that needs ranks: one process per GPU (two on the CPU), each with findings of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from persianmind.common.atomic import read_json
from persianmind.common.child import start_child
from persianmind.common.errors import PersianMindError
from persianmind.common.ports import unused_port
from persianmind.gpucheck.findings import FindingsState
from persianmind.gpucheck.process import PROCESS_MODULE, child_setting
from persianmind.gpucheck.setting import PartSetting

POLL_S = 0.1


class RankFailedError(PersianMindError):
    """A rank of a part ended with an error; the message is its own."""


def run_on_ranks(
    function: str,
    setting: PartSetting,
    count: int,
    *,
    label: str,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Runs "module:name" on `count` ranks of this machine.

    Args:
        label: a name for the files of this run.
        environment: variables that the ranks get beside those of this process.
        options: the ranks' `PartSetting.options`.
        quiet: whether what the ranks print is thrown away.

    Returns:
        The values of each rank's findings, in rank order.

    Raises:
        RankFailedError: the first rank that ended with an error; the others are killed.
    """
    port = str(unused_port())
    paths = [setting.folder / f"{label}-{rank}.json" for rank in range(count)]
    output = subprocess.DEVNULL if quiet else None
    asked = replace(setting, options=dict(options or {}))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank, path in enumerate(paths):
            processes.append(
                start_child(
                    PROCESS_MODULE,
                    child_setting(function, asked, path),
                    environment={**_place(rank, count, port), **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            )
        codes = _wait_for_all(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    found = [read_json(path) if path.is_file() else {} for path in paths]
    _raise_for_failed(label, found, codes)
    return [one["values"] for one in found]


def _place(rank: int, count: int, port: str) -> dict[str, str]:
    """What a launcher would set."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    variables = {name: str(value) for name, value in place.items()}
    return {**variables, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _wait_for_all(processes: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Until all have ended, or one with an error: the exit codes by then, None where one still runs."""
    while True:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes):
            return codes
        time.sleep(POLL_S)


def _raise_for_failed(label: str, found: Sequence[Mapping[str, Any]], codes: Sequence[int | None]) -> None:
    """The reason that a rank gave comes before a bare exit code: that may be a consequence."""
    for rank, one in enumerate(found):
        if one.get("state") == FindingsState.FAILED:
            raise RankFailedError(f"{label}: rank {rank}: {one['reason']}")
    for rank, (one, code) in enumerate(zip(found, codes, strict=True)):
        if code or (code == 0 and one.get("state") != FindingsState.DONE):
            raise RankFailedError(f"{label}: rank {rank} ended with status {code} and said nothing")
