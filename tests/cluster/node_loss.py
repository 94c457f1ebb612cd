"""One node of two is lost in mid-run: what must hold, wherever the nodes are."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.cluster.helpers import (
    FAST,
    LONGER,
    LONGER_STEPS,
    TINY,
    assert_complete,
    end_family,
    metrics,
    step_of,
    wait_for,
)


def lose_a_node(
    submit: Callable[..., subprocess.Popen[bytes]], kill: Callable[[], None], run: Path, log: Path
) -> float:
    """Submits a job of two workers, kills a node after step 10, and sees the job to its end on the other.

    Returns when the node was killed, seconds since the epoch. Prints what the loss cost: until the second
    attempt began (detection, Ray's wait and restart), and until its first step.
    """
    flags = (*TINY, "--output", str(run), "--cpu-workers", "2", "--min-workers", "1", *FAST, LONGER)
    process = submit(*flags, log=log)
    try:
        wait_for(lambda: step_of(run) >= 10, 180, process)
        assert "attempt 1: 2 ranks on" in log.read_text()
        lost_s = time.time()
        kill()
        wait_for(lambda: "attempt 2: 1 ranks on" in log.read_text(), 180, process)
        again_s = time.time()
        assert process.wait(240) == 0, log.read_text()[-4000:]
    finally:
        end_family(process)
    assert "resharded from 2 to 1 ranks" in log.read_text()
    assert_complete(run, LONGER_STEPS)
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in metrics(run)]
    first_s = min(moment for moment in times if moment > lost_s + 1)
    print(
        f"a node's death: second attempt after {again_s - lost_s:.1f} s, its first step after "
        f"{first_s - lost_s:.1f} s"
    )
    return lost_s
