"""The process of one part, or of one rank of a part: `python -m persianmind.gpucheck.process SETTING`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persianmind.common.child import die_with_parent, parent_is_gone, read_setting
from persianmind.common.log import configure_logging, print_traceback
from persianmind.engine.registry import backend
from persianmind.gpucheck.findings import Findings, FindingsState, NotApplicableError
from persianmind.gpucheck.setting import PartSetting

PROCESS_MODULE = "persianmind.gpucheck.process"


def child_setting(function: str, setting: PartSetting, findings: Path) -> dict[str, Any]:
    """What this module is started with. function: "module:name"; findings: the file it leaves."""
    return {"function": function, "findings": str(findings), "part": setting.as_json()}


def run_function(function: str, setting: PartSetting, findings: Findings) -> bool:
    """Calls "module:name"; whatever it raises ends in the findings, an error of ours as its one line.

    Returns:
        Whether it ran to its end, or had nothing to do.
    """
    module, _, name = function.partition(":")
    try:
        measure: Callable[[PartSetting, Findings], None] = getattr(importlib.import_module(module), name)
        measure(setting, findings)
    except NotApplicableError as error:
        findings.end(FindingsState.SKIPPED, str(error))
        return True
    except Exception as error:  # whatever a driver, a kernel or a library may raise: the report must name it
        print_traceback()
        findings.end(FindingsState.FAILED, f"{type(error).__name__}: {error}"[:600])
        return False
    findings.end(FindingsState.DONE)
    return True


def main() -> None:
    """Entry of the child; dies with the process that started it."""
    die_with_parent()
    asked = read_setting()
    if parent_is_gone(asked):  # it ended before the kernel knew
        sys.exit(1)
    backend().prepare_environment()
    configure_logging()
    setting = PartSetting.read(asked["part"])
    setting.folder.mkdir(parents=True, exist_ok=True)
    is_done = run_function(asked["function"], setting, Findings(Path(asked["findings"])))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of NCCL and gloo can hang the interpreter's shutdown; all findings are on disk.
    os._exit(0 if is_done else 1)


if __name__ == "__main__":
    main()
