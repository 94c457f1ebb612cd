"""Waiting for something that only looking can tell: a file on shared storage, a process, a job."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_until(
    look: Callable[[], Found | None],
    *,
    timeout_s: float | None = None,
    interval_s: float = 0.2,
    while_waiting: Callable[[], object] | None = None,
) -> Found | None:
    """Calls `look` until it returns something true, and returns that.

    Args:
        timeout_s: when to give up; None never does. `look` is called at least once, and once more at the end.
        interval_s: pause between two looks.
        while_waiting: called before each pause; what it raises ends the wait.

    Returns:
        What `look` returned, or its last false value once the time is over.
    """
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while not (found := look()):
        if deadline_s is not None and time.monotonic() >= deadline_s:
            return found
        if while_waiting is not None:
            while_waiting()
        pause_s = interval_s if deadline_s is None else min(interval_s, deadline_s - time.monotonic())
        time.sleep(max(0.0, pause_s))
    return found


def spaced_out(say: Callable[[float], object], first_s: float = 10.0) -> Callable[[], None]:
    """For `while_waiting`: says at once that something is waited for, and then ever more rarely.

    Args:
        say: is given the seconds waited so far.
        first_s: until the second call of `say`; each further one comes after twice as long.
    """
    started_s = time.monotonic()
    due_s, pause_s = started_s, first_s

    def waiting() -> None:
        nonlocal due_s, pause_s
        if (now_s := time.monotonic()) >= due_s:
            say(now_s - started_s)
            due_s, pause_s = due_s + pause_s, pause_s * 2

    return waiting
