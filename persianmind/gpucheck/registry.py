"""The parts of the check, in the order in which they run: what matters most comes first, since the time of
the whole check is limited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from persianmind.common.errors import UsageError, nearest

# Of the whole check; a part that would begin later is not run.
WHOLE_LIMIT_S = 530.0
# On the CPU limits are there for what hangs alone: a busy machine must not fail.
SMALL_WHOLE_LIMIT_S, SMALL_LIMIT_S = 1200.0, 300.0


@dataclass(frozen=True, slots=True)
class CheckPart:
    """function: "module:name", imported in the part's own process alone. limit_s: when that process is killed
    on a machine with GPUs."""

    name: str
    function: str
    limit_s: float


def _part(name: str, function: str, limit_s: float) -> CheckPart:
    return CheckPart(name, f"persianmind.gpucheck.parts.{function}", limit_s)


PARTS = (
    _part("machine", "machine:measure_machine", 40),
    _part("numerics", "numerics:measure_numerics", 90),
    _part("isolation", "isolation:measure_isolation", 60),
    _part("ranks", "ranks:measure_ranks", 90),
    _part("tiny", "tiny:measure_tiny", 120),
    _part("resume", "resume:measure_resume", 180),
    _part("memory", "memory:measure_memory", 120),
    _part("kernels", "kernels:measure_kernels", 60),
    _part("throughput", "throughput:measure_throughput", 90),
    _part("levers", "levers:measure_levers", 150),
    _part("collectives", "collectives:measure_collectives", 80),
    _part("peers", "peers:measure_peers", 150),
    _part("nvml", "nvml:measure_nvml", 40),
)


def choose_parts(names: Sequence[str]) -> list[CheckPart]:
    """The named parts in the order of the check; all where none is named.

    Raises:
        UsageError: a name is unknown.
    """
    known = [part.name for part in PARTS]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--parts: no part {name!r}{nearest(name, known)}; known are: {', '.join(known)}"
            )
    return [part for part in PARTS if not names or part.name in names]
