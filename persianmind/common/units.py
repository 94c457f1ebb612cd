"""Times and sizes in the units that people use."""

from __future__ import annotations

from datetime import datetime, timedelta

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


def duration_text(seconds: float) -> str:
    """Two units at most: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 2 * MINUTE_S:
        return f"{whole} s"
    if whole < 2 * HOUR_S:
        return f"{round(whole / MINUTE_S)} min"
    if whole < 2 * DAY_S:
        hours, rest = divmod(round(whole / MINUTE_S), 60)
        return f"{hours} h {rest} min"
    days, rest = divmod(round(whole / HOUR_S), 24)
    return f"{days} d {rest} h"


def clock_text(seconds: float, now: datetime | None = None) -> str:
    """The time of the clock in so many seconds, with the day where it is another one."""
    now = now or datetime.now()
    then = now + timedelta(seconds=seconds)
    if then.date() == now.date():
        return f"{then:%H:%M}"
    return f"{then:%a %H:%M}" if seconds < 6 * DAY_S else f"{then:%d %b %H:%M}"


def size_text(size_bytes: float) -> str:
    """Bytes in GB (10**9), or in MB where that says more."""
    return f"{size_bytes / 1e9:,.2f} GB" if abs(size_bytes) >= 1e8 else f"{size_bytes / 1e6:,.1f} MB"
