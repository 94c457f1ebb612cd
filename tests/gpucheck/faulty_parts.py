"""Parts that go wrong in every way, and one that looks at the report meanwhile. Light: no torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from persianmind.gpucheck.fanout import run_on_ranks
from persianmind.gpucheck.findings import Findings, NotApplicableError
from persianmind.gpucheck.registry import CheckPart
from persianmind.gpucheck.setting import PartSetting


def part(name: str, limit_s: float = 60.0) -> CheckPart:
    return CheckPart(name, f"{__name__}:{name}", limit_s)


def good(setting: PartSetting, findings: Findings) -> None:
    findings.record(number=1.5, not_a_number=float("nan"), small=setting.small)
    findings.expect("one is one", True, seen=1)
    findings.summarise("all well")


def raising(setting: PartSetting, findings: Findings) -> None:
    findings.record(before=1)
    print("a last word on standard output", flush=True)
    raise RuntimeError("CUDA error:\nno kernel image is available")


def hanging(setting: PartSetting, findings: Findings) -> None:
    """With a child of its own, as a launcher has ranks."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    findings.record(before=1, child=child.pid)
    time.sleep(600)


def killing_itself(setting: PartSetting, findings: Findings) -> None:
    findings.record(before=1)
    os.kill(os.getpid(), signal.SIGKILL)


def leaving(setting: PartSetting, findings: Findings) -> None:
    """As a library that calls exit() does."""
    os._exit(7)


def failing_a_check(setting: PartSetting, findings: Findings) -> None:
    findings.expect("one is two", False, seen=1, limit=2)
    findings.expect("one is one", True)


def not_here(setting: PartSetting, findings: Findings) -> None:
    raise NotApplicableError("needs 2 GPUs or more, and 0 is visible here")


def looking(setting: PartSetting, findings: Findings) -> None:
    """What the report says at this moment, from the folder that all parts share."""
    report = json.loads((setting.folder.parents[1] / "report.json").read_text())
    findings.record(seen={name: one["status"] for name, one in report["parts"].items()})


def on_ranks(setting: PartSetting, findings: Findings) -> None:
    found = run_on_ranks(f"{__name__}:one_rank", setting, 2, label="two", options={"word": "hello"})
    findings.record(found=found)


def one_rank(setting: PartSetting, findings: Findings) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "EXTRA")
    findings.record(word=setting.options["word"], **{name: os.environ.get(name) for name in names})


def second_rank_raises(setting: PartSetting, findings: Findings) -> None:
    """The other one waits for it, as in a collective; it raises once the other one has begun to wait."""
    folder = Path(setting.options["pids"])
    if os.environ["RANK"] == "1":
        while not (folder / "waiting").exists():
            time.sleep(0.02)
        raise RuntimeError("OutOfMemoryError: 1 GiB")
    (folder / "begun").write_text(str(os.getpid()))
    (folder / "begun").rename(folder / "waiting")
    time.sleep(600)


def second_rank_dies(setting: PartSetting, findings: Findings) -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
