"""A child of test_child.py: does what its setting asks and prints what it sees."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from persianmind.common.child import die_with_parent, parent_is_gone, read_setting, start_child


def main() -> None:
    setting = read_setting()
    if setting["role"] == "parent":  # starts a child of its own, says its pid, and is killed
        inner = start_child("tests.common.child_probe", {**setting["child"], "pid_file": setting["pid_file"]})
        while not Path(setting["pid_file"]).is_file():
            time.sleep(0.01)
        print(inner.pid, flush=True)
        time.sleep(60)
    if setting["role"] == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if setting.get("die_with_parent"):
        die_with_parent()
    print(json.dumps({"setting": setting, "orphan": parent_is_gone(setting), "pid": os.getpid()}), flush=True)
    if "pid_file" in setting:
        Path(setting["pid_file"]).write_text(str(os.getpid()))
    if setting["role"] == "waits-for-parent":
        while not parent_is_gone(setting):
            time.sleep(0.01)
        Path(setting["gone_file"]).write_text("gone")
    elif setting["role"] != "short":
        time.sleep(60)
    sys.exit(setting.get("code", 0))


if __name__ == "__main__":
    main()
