"""Runs the parts one after another, each in a process (and a process group) of its own with a time limit.

This process imports neither torch nor anything that touches a GPU: a driver that hangs or kills takes one
part with it and no more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persianmind.common.atomic import read_json
from persianmind.common.child import start_child
from persianmind.gpucheck.findings import FindingsState
from persianmind.gpucheck.process import PROCESS_MODULE, child_setting
from persianmind.gpucheck.registry import SMALL_LIMIT_S, SMALL_WHOLE_LIMIT_S, WHOLE_LIMIT_S, CheckPart
from persianmind.gpucheck.report import CheckReport, PartOutcome, PartStatus
from persianmind.gpucheck.setting import PartSetting

LEAST_S = 5.0  # with less than this left a part is not begun
END_WAIT_S = 3.0
LOG_LINES, LOG_BYTES = 40, 1 << 16
# Nothing is downloaded; the order of GPUs is that of NVML and nvidia-smi.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
# One thread: at tiny shapes more only wait for each other.
CPU_ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

logger = logging.getLogger(__name__)


def run_check(
    parts: Sequence[CheckPart], out: Path, *, small: bool, whole_limit_s: float | None = None
) -> CheckReport:
    """Runs the parts and writes `out/report.json`; logs and scratch lie below `out/parts`.

    Args:
        small: on the CPU, at tiny shapes.
        whole_limit_s: of all parts together.
    """
    shutil.rmtree(out / "parts", ignore_errors=True)
    report = CheckReport(out / "report.json", [part.name for part in parts], small=small)
    deadline_s = time.monotonic() + (whole_limit_s or (SMALL_WHOLE_LIMIT_S if small else WHOLE_LIMIT_S))
    for part in parts:
        left_s = deadline_s - time.monotonic()
        limit_s = min(SMALL_LIMIT_S if small else part.limit_s, left_s)
        report.begin(part.name)
        if left_s < LEAST_S:
            outcome = PartOutcome(PartStatus.FAILED, "not run: the time of the whole check is used up")
        else:
            outcome = run_part(part, out / "parts", small=small, limit_s=limit_s)
        report.end(part.name, outcome)
        logger.info(f"gpu-check: {part.name}: {outcome.status} in {outcome.seconds:.0f} s; {_line(outcome)}")
    return report


def run_part(part: CheckPart, folder: Path, *, small: bool, limit_s: float) -> PartOutcome:
    """Runs one part to its end, or kills it with everything it started once `limit_s` is over."""
    started_s = time.monotonic()
    findings, log = folder / f"{part.name}.json", folder / f"{part.name}.log"
    folder.mkdir(parents=True, exist_ok=True)
    setting = PartSetting(small, folder / part.name, limit_s)
    with log.open("wb") as output:
        process = start_child(
            PROCESS_MODULE,
            child_setting(part.function, setting, findings),
            environment={**ENVIRONMENT, **(CPU_ENVIRONMENT if small else {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(process)
    shutil.rmtree(setting.folder, ignore_errors=True)
    return _outcome(code, findings, log, limit_s, time.monotonic() - started_s)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The process and whatever it left behind: ranks, launchers."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_WAIT_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(code: int | None, findings: Path, log: Path, limit_s: float, seconds: float) -> PartOutcome:
    """What the part left on disk, judged with how its process ended (None: killed for time)."""
    found: dict[str, Any] = read_json(findings) if findings.is_file() else {}
    status, reason = _judge(code, found, limit_s)
    return PartOutcome(
        status=status,
        reason=reason,
        seconds=round(seconds, 2),
        summary=found.get("summary", ""),
        values=found.get("values", {}),
        checks=found.get("checks", []),
        log=_tail(log) if status in (PartStatus.FAILED, PartStatus.TIMED_OUT) else (),
    )


def _judge(code: int | None, found: dict[str, Any], limit_s: float) -> tuple[PartStatus, str]:
    if code is None:
        return PartStatus.TIMED_OUT, f"killed after its {limit_s:.0f} s"
    state = found.get("state")
    if code < 0:
        name = signal.Signals(-code).name
        return PartStatus.FAILED, f"its process was killed by {name} (the kernel does so when memory is out)"
    if state == FindingsState.SKIPPED:
        return PartStatus.SKIPPED, found["reason"]
    if state != FindingsState.DONE or code:
        return PartStatus.FAILED, found.get("reason") or f"its process ended with status {code}"
    if bad := [check for check in found["checks"] if not check["ok"]]:
        return PartStatus.FAILED, f"{len(bad)} of {len(found['checks'])} checks: {json.dumps(bad[0])}"
    return PartStatus.PASSED, ""


def _tail(log: Path) -> list[str]:
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - LOG_BYTES))
        return handle.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]


def _line(outcome: PartOutcome) -> str:
    return outcome.reason or outcome.summary
