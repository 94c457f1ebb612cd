"""The real meter process under a fake NVML library: what it counts, and that it disturbs nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from persianmind.energy.ledger import read_ledger
from persianmind.energy.meter.pipes import NODE_GPUS
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase
from tests.energy.conftest import WATTS
from tests.energy.ledgers import fake_nvml_environment, read_lines
from tests.energy.meters import gpu_joules, ready_meter, start_meter, summary_of, wait_for


@dataclass
class Counted:
    """A run that was counted from its start to its end. at_least_s, at_most_s: how long it took."""

    run: Path
    joules: float
    at_least_s: float
    at_most_s: float


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """One run on four fake GPUs; tests only read it."""
    run = tmp_path_factory.mktemp("counted")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fake_nvml_environment(run / "control.json", WATTS).items():
            patch.setenv(name, value)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        begun_s = time.monotonic()
        meter = start_meter(run)
        started_s = time.monotonic()
        meter.mark(Phase.PREPARE, 0, "data")
        wait_for(meter.joules, "reading")
        meter.mark(Phase.TRAIN, 1, "export")  # a stage may be called so
        before = meter.joules()
        wait_for(lambda: meter.joules() > before + sum(WATTS), "further second")
        meter.mark(Phase.TRAIN, 2, "export")
        asked_s = time.monotonic()
        meter.stop()
        yield Counted(run, meter.joules(), asked_s - started_s, time.monotonic() - begun_s)


def test_four_gpus_agree_with_an_integration_outside(counted: Counted) -> None:
    joules = gpu_joules(counted.run)
    for number, watts in enumerate(WATTS):
        at_least, at_most = 0.95 * watts * counted.at_least_s, 1.05 * watts * counted.at_most_s
        assert at_least <= joules[f"gpu{number}"] <= at_most
    assert counted.joules == pytest.approx(summary_of(counted.run)["kwh"] * 3.6e6, rel=1e-3)


def test_sources_and_stages_are_named(counted: Counted) -> None:
    summary = summary_of(counted.run)
    assert "NVML energy counter (NVIDIA GeForce RTX 3090)" in summary["by_component"]["gpu3"]["sources"]
    assert 0.0 < summary["measured_ratio"] < 1.0  # the start-up, CPU and memory are estimated
    assert set(summary["by_stage"]) <= {"prepare", "prepare:data", "train:export"}
    assert {"prepare:data", "train:export"} <= set(summary["by_stage"])
    assert summary["problems"] == []
    first = read_ledger(RunFolder(counted.run)).attempts[0].first_training()
    assert first is not None and (first.stage, first.step_from) == ("export", 1)


def test_codecarbon_writes_no_file_of_its_own(counted: Counted) -> None:
    names = {path.name for path in counted.run.rglob("*") if path.is_file()}
    assert names == {"box.jsonl", ".box.lock", "control.json"}


def test_only_the_gpus_of_the_run_are_counted(
    tmp_path: Path, gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    ready_meter(tmp_path).stop()
    assert set(gpu_joules(tmp_path)) == {"gpu0", "gpu2"}


def test_the_gpus_of_a_nodes_other_ranks_are_counted_where_each_sees_its_own(
    tmp_path: Path, gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv(NODE_GPUS, "1,3")
    ready_meter(tmp_path).stop()
    assert set(gpu_joules(tmp_path)) == {"gpu1", "gpu3"}


def test_a_lost_gpu_leaves_the_others_counted_and_old_gpus_are_averaged(
    tmp_path: Path, gpus: Path, logged: pytest.LogCaptureFixture
) -> None:
    fake_nvml_environment(gpus, WATTS, no_counter=True, failing=[])
    meter = ready_meter(tmp_path)
    fake_nvml_environment(gpus, WATTS, no_counter=True, failing=[1])

    def grown(since: dict[str, float]) -> bool:
        meter.joules()  # takes its messages as well
        return gpu_joules(tmp_path).get("gpu0", 0.0) > since.get("gpu0", 0.0) + 0.5 * WATTS[0]

    wait_for(lambda: (meter.joules(), logged.messages)[1], "message")
    first = gpu_joules(tmp_path)
    wait_for(lambda: grown(first), "further line")  # whatever was read of gpu1 is written by then
    second = gpu_joules(tmp_path)
    wait_for(lambda: grown(second), "further line")
    meter.stop()
    after = gpu_joules(tmp_path)
    assert after.get("gpu1") == second.get("gpu1") and after["gpu0"] > second["gpu0"]
    assert len(logged.messages) == 1 and "gpu1 cannot be read" in logged.messages[0]
    sources = summary_of(tmp_path)["by_component"]["gpu0"]["sources"]
    assert any("power readings" in source for source in sources)


def test_imitated_throttling_and_xids_reach_the_log_the_ledger_and_the_account(
    tmp_path: Path, gpus: Path, logged: pytest.LogCaptureFixture
) -> None:
    logged.set_level(logging.INFO)
    state: dict[str, Any] = {
        "enforced": [280] * 4,
        "reasons": [0, 0, 0x20, 0],
        "temperatures": [60, 60, 84, 60],
    }
    fake_nvml_environment(gpus, WATTS, **state)
    meter = ready_meter(tmp_path)
    fake_nvml_environment(gpus, WATTS, **state, xids=[[3, 79]])

    def said(words: str) -> bool:
        meter.joules()  # takes its messages as well
        return any(words in message for message in logged.messages)

    wait_for(lambda: said("Xid 79"), "Xid in the log")
    wait_for(lambda: said("gpu2: clocks are held down: temperature (84 C)"), "throttling in the log")
    meter.stop()
    first = "energy: gpu0, gpu1, gpu2, gpu3: power limit 280 W (default 350 W), clocks up to 2,100 MHz"
    assert logged.messages.count(first) == 1
    levels = {record.levelno for record in logged.records if "Xid" in record.message}
    assert levels == {logging.WARNING}
    summary = summary_of(tmp_path)
    by_gpu = {gpu["gpu"]: gpu for gpu in summary["gpus"]}
    assert (
        by_gpu["gpu2"]["throttled_ratio"] == {"temperature": 1.0} and by_gpu["gpu0"]["throttled_ratio"] == {}
    )
    assert [one["xid"] for one in by_gpu["gpu3"]["xids"]] == [79]
    assert sum("Xid 79" in note for note in summary["notes"]) == 1


def test_imitated_refusal_is_one_line_and_the_joules_are_counted(
    tmp_path: Path, gpus: Path, logged: pytest.LogCaptureFixture
) -> None:
    denied = ("EnforcedPowerLimit", "ClockInfo", "Temperature", "CurrentClocksEventReasons")
    deny = {f"nvmlDeviceGet{name}": "NVMLError_NoPermission" for name in denied}
    deny["nvmlDeviceGetCurrentClocksThrottleReasons"] = deny["nvmlEventSetCreate"] = "NVMLError_NoPermission"
    fake_nvml_environment(gpus, WATTS, deny=deny)
    meter = ready_meter(tmp_path)
    before = meter.joules()
    wait_for(lambda: meter.joules() > before, "further reading")
    meter.stop()
    (line,) = [message for message in logged.messages if "cannot be read" in message]
    assert "throttle reasons of gpu0, gpu1, gpu2, gpu3 cannot be read (Insufficient Permissions)" in line
    assert set(gpu_joules(tmp_path)) == {"gpu0", "gpu1", "gpu2", "gpu3"}


def test_codecarbons_own_loop_would_lose_the_gpus_beside_a_lost_one(tmp_path: Path, gpus: Path) -> None:
    """The control of the test above: why hardware.py reads each GPU by itself."""
    code = textwrap.dedent("""
        import json, os, time
        from persianmind.energy.meter.hardware import Hardware
        hardware = Hardware()
        hardware.start()
        path = os.environ["FAKE_NVML_CONTROL"]
        control = json.load(open(path))
        json.dump({**control, "failing": [0]}, open(path, "w"))
        time.sleep(0.3)
        part = next(part for part in hardware._parts if type(part).__name__ == "GPU")
        theirs = part.measure_power_and_energy(last_duration=0.3)[1].kWh
        ours = [r.component for r in hardware.read(0.3)[0] if r.component.startswith("gpu")]
        print(theirs, *ours)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.0", "gpu1", "gpu2", "gpu3"]


def test_a_meter_switched_off_does_nothing(tmp_path: Path) -> None:
    meter = start_meter(tmp_path, options=Energy(enabled=False))
    meter.mark(Phase.TRAIN, 1, "pretrain")
    assert meter.joules() == 0.0
    meter.stop()
    assert not (tmp_path / "energy").exists()


def test_it_lives_beside_torch_and_gloo(tmp_path: Path, gpus: Path) -> None:
    """The meter starts before the process group, as launcher/train.py does it, and changes no result."""
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from persianmind.energy.meter.client import EnergyMeter
        from persianmind.recipe import Energy
        from persianmind.run.folder import RunFolder
        from persianmind.run.records import Phase
        run = Path(sys.argv[1])
        meter = EnergyMeter(RunFolder(run), node="box", options=Energy(interval_s=0.5)).start()
        import torch, torch.distributed as dist
        dist.init_process_group("gloo", init_method=f"file://{run}/rendezvous", rank=0, world_size=1)
        value = torch.ones(4)
        meter.mark(Phase.TRAIN, 1, "pretrain")
        steps = 0
        while meter.joules() == 0 or steps < 100:
            steps += 1
            dist.all_reduce(value)
            meter.mark(Phase.TRAIN, steps, "pretrain")
        assert value.tolist() == [1.0] * 4
        dist.destroy_process_group()
        meter.stop()
        print("codecarbon" in sys.modules)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
    assert summary_of(tmp_path)["by_stage"]["pretrain"] > 0


def test_the_meter_process_imports_neither_torch_nor_the_recipe() -> None:
    code = "import sys, persianmind.energy.meter.process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "codecarbon", "persianmind.recipe", "persianmind.train"} & set(done.stdout.split())


def test_the_real_hardware_of_this_machine_is_counted(tmp_path: Path) -> None:
    """No fake at all: codecarbon as installed must give CPU and memory, whatever this machine is."""
    ready_meter(tmp_path).stop()
    components = summary_of(tmp_path)["by_component"]
    assert components["cpu"]["kwh"] > 0 and components["ram"]["kwh"] > 0
    assert os.getpid() == read_lines(tmp_path, "box")[0]["pid"]
