"""The programs of test_launcher.py: `deepspeed`, which starts `launch.py`, which starts a rank.

    python PROGRAM FOLDER PROGRAM...        starts the programs below it, says its pid, and waits

A rank (the last) begins once FOLDER/begin is there, and writes what it sees of its launchers again and again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from persianmind.common.atomic import write_text
from persianmind.common.poll import wait_until

STARTER_ENVIRONMENT = {"CROSS_RANK": "0"}


def main() -> None:
    folder, below = Path(sys.argv[1]), sys.argv[2:]
    write_text(folder / f"{Path(sys.argv[0]).stem}.pid", str(os.getpid()))
    if below:
        starter = Path(sys.argv[0]).stem == "launch"
        environment = {**os.environ, **(STARTER_ENVIRONMENT if starter else {})}
        subprocess.run([sys.executable, below[0], str(folder), *below[1:]], env=environment, check=False)
        return
    from persianmind.engine.deepspeed.launcher import launcher_is_gone, launcher_pids, remember_launchers

    wait_until((folder / "begin").exists, interval_s=0.01)
    remember_launchers()
    while True:
        write_text(folder / "seen", json.dumps({"gone": launcher_is_gone(), "above": launcher_pids()}))
        time.sleep(0.02)


if __name__ == "__main__":
    main()
