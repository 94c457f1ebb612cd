"""The hardware of a run by its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persianmind.energy.ledger import Ledger, read_ledger
from persianmind.energy.machines import hardware_names
from persianmind.energy.meter.hardware import _gpu_source
from persianmind.run.energy_records import EnergyReading
from persianmind.run.folder import RunFolder
from tests.energy.ledgers import sample, start, write


def of_node(tmp_path: Path, node: str, gpus: dict[str, str], cpu: str | None) -> None:
    """One node's ledger: `gpus` are component -> source."""
    readings = [
        EnergyReading(component=name, joules=1.0, kind="measured", source=source)
        for name, source in gpus.items()
    ]
    line = sample("1", node, "pretrain", (1, 2), {"cpu": 1.0})
    first = start("1", node).model_copy(update={"host": {"cpu_model": cpu}})
    write(tmp_path, node, [first, line.model_copy(update={"readings": [*line.readings, *readings]})])


class OfCodecarbon:
    """A GPU as codecarbon holds it; the name of the class decides the vendor."""

    _use_power_fallback = False

    def __init__(self, name: str) -> None:
        self._gpu_name = name


def source(name: str) -> str:
    """What the meter writes of a GPU of this name."""
    return _gpu_source(type("NvidiaGPUDevice", (OfCodecarbon,), {})(name))


def test_gpus_and_cpus_are_counted_over_nodes(tmp_path: Path) -> None:
    rtx, tesla = source("NVIDIA GeForce RTX 3090"), source("Tesla V100-SXM2 (32GB)")
    assert rtx == "NVML energy counter (NVIDIA GeForce RTX 3090)"
    of_node(tmp_path, "a", {"gpu0": rtx, "gpu1": rtx}, "AMD EPYC 7302")
    of_node(tmp_path, "b", {"gpu0": rtx, "gpu1": tesla}, "AMD EPYC 7302")
    names = hardware_names(read_ledger(RunFolder(tmp_path)))
    assert names == "3 x NVIDIA GeForce RTX 3090, Tesla V100-SXM2 (32GB), 2 x AMD EPYC 7302"


@pytest.mark.parametrize("cpu", [None, "", " "])
def test_what_has_no_name_is_said_to_have_none(tmp_path: Path, cpu: str | None) -> None:
    of_node(tmp_path, "a", {"gpu0": "extrapolated from the first readings: the meter was starting"}, cpu)
    ledger = read_ledger(RunFolder(tmp_path))
    assert hardware_names(ledger) == "GPU of unknown name, CPU of unknown name"


def test_a_gpu_counts_once_however_often_the_run_was_started(tmp_path: Path) -> None:
    starting = {"gpu0": "extrapolated from the first readings: the meter was starting"}
    of_node(tmp_path, "a", starting, "AMD EPYC")
    of_node(tmp_path, "b", {"gpu0": source("RTX 3090")}, "AMD EPYC")
    of_node(tmp_path, "c", starting, None)
    attempts: list[Any] = [*read_ledger(RunFolder(tmp_path)).attempts]
    for attempt in attempts:
        attempt.node = "a"
    assert hardware_names(Ledger(attempts=attempts)) == "RTX 3090, AMD EPYC"
    assert hardware_names(Ledger()) is None
