"""The command line of DeepSpeed's launcher."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from persianmind.common.device.choice import FORCED, VISIBLE, DeviceChoice
from persianmind.common.errors import MachineError
from persianmind.common.ports import unused_port


def launch_ranks(
    module: str, arguments: Sequence[str], choice: DeviceChoice, ranks: int, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """What starts `module` as `ranks` ranks on this machine: the command and its variables.

    Raises:
        MachineError: DeepSpeed's program is not here.
    """
    variables = {**environment, FORCED: choice.kind}
    count = ["--num_accelerators", str(ranks)]
    if choice.kind == "cuda" and ranks == choice.count:
        count = []
    elif choice.kind == "cuda" and (visible := environment.get(VISIBLE)):
        # Given a count, the launcher would forget which GPUs are visible.
        count, variables[VISIBLE] = [], ",".join(visible.split(",")[:ranks])
    return [
        _program(),
        *count,
        "--master_port",
        str(unused_port()),
        "--module",
        module,
        *arguments,
    ], variables


def _program() -> str:
    beside = Path(sys.executable).parent / "deepspeed"
    found = str(beside) if beside.is_file() else shutil.which("deepspeed")
    if found is None:
        raise MachineError(
            f"no program `deepspeed` beside {sys.executable} nor on the PATH: `pip install deepspeed` in "
            "this environment"
        )
    return found
