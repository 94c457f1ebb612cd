"""What a run was made on, by the names of its parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from persianmind.energy.ledger import Attempt, Ledger

# The name stands in brackets at the end of a GPU reading's source (meter/hardware.py).
_GPU_NAME = re.compile(r"[^(]*\((.+)\)")


def hardware_names(ledger: Ledger) -> str | None:
    """The counted GPUs and the CPUs of all nodes: "4 x NVIDIA GeForce RTX 3090, AMD EPYC 7302".

    A part that could not be named is said to be unknown; of a node that was started several times, the last
    name of a part counts. No node is named.

    Returns:
        None where no part is known.
    """
    gpus: dict[tuple[str, str], str] = {}
    cpus: dict[str, str] = {}
    for attempt in ledger.attempts:
        for gpu, name in _gpus_of(attempt):
            gpus[attempt.node, gpu] = name or gpus.get((attempt.node, gpu), "GPU of unknown name")
        model = str(attempt.host.get("cpu_model") or "").strip()
        cpus[attempt.node] = model or cpus.get(attempt.node, "CPU of unknown name")
    return ", ".join([*_counted(gpus.values()), *_counted(cpus.values())]) or None


def gpu_names(ledger: Ledger) -> list[str]:
    """What the counted GPUs are called, each name once; [] where none was counted or none is named."""
    found = (name for attempt in ledger.attempts for _, name in _gpus_of(attempt))
    return list(dict.fromkeys(name for name in found if name))


def _gpus_of(attempt: Attempt) -> Iterator[tuple[str, str | None]]:
    """(component, name) of every reading of a GPU; None where the reading does not name it."""
    for reading in (reading for sample in attempt.samples for reading in sample.readings):
        if reading.component.startswith("gpu"):
            found = _GPU_NAME.fullmatch(reading.source)
            yield reading.component, found[1] if found else None


def _counted(names: Iterable[str]) -> list[str]:
    return [f"{count} x {name}" if count > 1 else name for name, count in Counter(names).items()]
