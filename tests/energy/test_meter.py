"""The real meter process under a fake NVML library: four GPUs, crashes, dead meters, two ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ledgers import fake_nvml_environment, read_lines

from persianmind.energy.ledger import read_ledger, summarise
from persianmind.energy.meter.client import EnergyMeter
from persianmind.energy.meter import client as module
from persianmind.recipe import Energy

WATTS = [300.0, 310.0, 320.0, 330.0]
OPTIONS = Energy(interval_s=0.5)
READY_S = 25.0


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Four fake GPUs; returns the control file."""
    control = tmp_path / "control.json"
    for name, value in fake_nvml_environment(control, WATTS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield control


def wait_for(condition: Callable[[], object], what: str, limit_s: float = READY_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} within {limit_s} s"
        time.sleep(0.05)


def gpu_joules(run: Path) -> dict[str, float]:
    components = summarise(read_ledger(run), OPTIONS)["by_component"]
    return {n: row["kwh"] * 3.6e6 for n, row in components.items() if n.startswith("gpu")}


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_four_gpus_agree_with_an_integration_outside(tmp_path: Path, gpus: Path) -> None:
    begun_s = time.monotonic()
    meter = EnergyMeter(tmp_path, node="box", options=OPTIONS).start()
    wait_for(lambda: meter.joules() > 0, "reading")
    meter.mark("pretrain", 1)
    time.sleep(1.2)
    meter.mark("pretrain", 2)
    seconds = time.monotonic() - begun_s
    meter.stop()
    joules = gpu_joules(tmp_path)
    for number, watts in enumerate(WATTS):
        assert joules[f"gpu{number}"] == pytest.approx(watts * seconds, rel=0.05)
    summary = summarise(read_ledger(tmp_path), OPTIONS)
    assert meter.joules() == pytest.approx(summary["kwh"] * 3.6e6, rel=1e-3)
    assert "NVML energy counter (NVIDIA GeForce RTX 3090)" in summary["by_component"]["gpu3"]["sources"]
    assert 0.1 < summary["measured_ratio"] < 1.0
    assert set(summary["by_stage"]) == {"prepare", "pretrain"}
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".csv"], "codecarbon wrote a file of its own"


def test_only_the_gpus_of_the_run_are_counted(
    tmp_path: Path, gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    with EnergyMeter(tmp_path, node="box", options=OPTIONS) as meter:
        wait_for(lambda: meter.joules() > 0, "reading")
    assert set(gpu_joules(tmp_path)) == {"gpu0", "gpu2"}


def test_a_lost_gpu_leaves_the_others_counted_and_old_cards_are_averaged(tmp_path: Path, gpus: Path) -> None:
    fake_nvml_environment(gpus, WATTS, no_counter=True, failing=[])
    said: list[str] = []
    with EnergyMeter(tmp_path, node="box", options=OPTIONS, show=said.append) as meter:
        wait_for(lambda: meter.joules() > 0, "reading")
        fake_nvml_environment(gpus, WATTS, no_counter=True, failing=[1])
        wait_for(lambda: (meter.joules(), said)[1], "message")
        before = gpu_joules(tmp_path)
        time.sleep(1.2)
    after = gpu_joules(tmp_path)
    assert after["gpu1"] == pytest.approx(before.get("gpu1", 0.0), abs=WATTS[1] * 0.6)
    assert after["gpu0"] > before.get("gpu0", 0.0) + WATTS[0]
    assert len(said) == 1 and "gpu1 cannot be read" in said[0]
    sources = summarise(read_ledger(tmp_path), OPTIONS)["by_component"]["gpu0"]["sources"]
    assert any("power readings" in source for source in sources)


def test_codecarbons_own_loop_would_lose_the_gpus_beside_a_lost_one(tmp_path: Path, gpus: Path) -> None:
    """The control of the test above: why hardware.py reads each GPU by itself."""
    code = textwrap.dedent("""
        import json, os, time
        from persianmind.energy.meter.hardware import Hardware
        hardware = Hardware("IRN")
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


def test_two_ranks_on_one_node_count_once_and_the_lock_is_why(tmp_path: Path, gpus: Path) -> None:
    said: list[str] = []

    def both(run: Path, second: str, first_stops_first: bool) -> float:
        first = EnergyMeter(run, node="box", options=OPTIONS, show=said.append).start()
        other = EnergyMeter(run, node=second, options=OPTIONS, show=said.append).start()
        begun_s = time.monotonic()
        wait_for(lambda: first.joules() > 0 or other.joules() > 0, "reading")
        if second != "box":
            wait_for(lambda: first.joules() > 0 and other.joules() > 0, "second reading")
        time.sleep(0.5)
        for meter in (first, other) if first_stops_first else (other, first):
            meter.stop()
        return sum(gpu_joules(run).values()) / (sum(WATTS) * (time.monotonic() - begun_s))

    # The one that waited may take over when the other leaves; what it finds then is not counted again.
    assert both(tmp_path / "overtaken", "box", True) <= 1.05
    assert both(tmp_path / "guarded", "box", False) <= 1.05
    # Two names are two locks: without the guard the same joules count twice.
    assert both(tmp_path / "unguarded", "box-again", False) > 1.6


TRAINING = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    from persianmind.energy.meter.client import EnergyMeter
    from persianmind.recipe import Energy
    print(time.monotonic(), flush=True)
    run, first, fork = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "fork"
    meter = EnergyMeter(run, node="box", options=Energy(interval_s=0.5)).start(resumed_step=first - 1)
    if fork and os.fork() == 0:
        time.sleep(60)
    while meter.joules() == 0:
        time.sleep(0.05)
    for step in range(first, 10_000):
        meter.mark("pretrain", step)
        print(step, flush=True)
        time.sleep(0.1)
""")


def start_training(run: Path, first: int, fork: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAINING, str(run), str(first), "fork" if fork else "plain"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_until(training: subprocess.Popen[str], step: int) -> None:
    assert training.stdout is not None
    for text in training.stdout:
        if int(text) >= step:
            return
    raise AssertionError("the training process ended early")


def test_kill_9_then_resume_sums_to_an_outside_meter_within_an_interval(tmp_path: Path, gpus: Path) -> None:
    outside_s = 0.0
    for first, fork in ((1, True), (11, False)):
        training = start_training(tmp_path, first, fork)
        assert training.stdout is not None
        begun_s = float(training.stdout.readline())  # one monotonic clock for all processes of a machine
        read_until(training, 21)
        children = psutil.Process(training.pid).children()
        sampler = next(child for child in children if "persianmind.energy.meter.process" in child.cmdline())
        training.kill()
        killed_s = time.monotonic()
        training.wait()
        training.stdout.close()
        outside_s += killed_s - begun_s
        wait_for(lambda s=sampler: not alive(s), "end of the meter after its parent's death", 5)
        for child in children:
            if alive(child):
                child.kill()
    total = sum(gpu_joules(tmp_path).values())
    assert total == pytest.approx(sum(WATTS) * outside_s, abs=sum(WATTS) * 2 * OPTIONS.interval_s)
    stops = [line["reason"] for line in read_lines(tmp_path, "box") if line["kind"] == "stop"]
    assert stops == ["the training process is gone"] * 2
    summary = summarise(read_ledger(tmp_path), OPTIONS)
    trained = summary["by_stage"]["pretrain"]
    assert 0.25 < summary["wasted_kwh"] / trained < 0.45, "steps 11 to 21 of 21 + 11 were done again"
    assert summary["attempts"] == 2


def test_a_meter_that_dies_is_said_once_and_training_goes_on(tmp_path: Path, gpus: Path) -> None:
    said: list[str] = []
    meter = EnergyMeter(tmp_path, node="box", options=OPTIONS, show=said.append).start()
    wait_for(lambda: meter.joules() > 0, "reading")
    process = meter._process
    assert process is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the training: the meter stays
        process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None
    counted = meter.joules()
    process.kill()
    process.wait()
    for step in range(5):
        meter.mark("pretrain", step)
    assert meter.joules() >= counted > 0
    meter.stop()
    assert len(said) == 1 and "signal 9" in said[0] and "training goes on" in said[0]
    assert any("signal 9" in problem for problem in read_ledger(tmp_path).problems)


def test_a_meter_that_hangs_blocks_neither_marks_nor_the_end(
    tmp_path: Path, gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_WAIT_S", 0.3)
    said: list[str] = []
    meter = EnergyMeter(tmp_path, node="box", options=OPTIONS, show=said.append).start()
    assert meter._process is not None
    meter._process.send_signal(signal.SIGSTOP)
    begun_s = time.monotonic()
    for step in range(20_000):  # far more than the pipe holds
        meter.mark("pretrain", step)
    assert time.monotonic() - begun_s < 5
    meter.stop()
    assert len(said) == 1 and "ended early" in said[0]


def test_a_meter_that_cannot_start_or_count_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module.sys, "executable", "/nonexistent/python")
    with EnergyMeter(tmp_path, node="box", options=OPTIONS, show=said.append) as meter:
        meter.mark("pretrain", 1)
        assert meter.joules() == 0.0
    assert len(said) == 1 and "could not start" in said[0]
    monkeypatch.undo()
    (tmp_path / "broken" / "codecarbon").mkdir(parents=True)
    (tmp_path / "broken" / "codecarbon" / "__init__.py").write_text("raise ImportError('no codecarbon here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    meter = EnergyMeter(tmp_path, node="box", options=OPTIONS, show=said.append).start()
    wait_for(lambda: (meter.joules(), len(said) > 1)[1], "message")
    meter.mark("pretrain", 1)
    meter.stop()
    assert "no codecarbon here" in said[1]
    assert any("no codecarbon here" in problem for problem in read_ledger(tmp_path).problems)


def test_a_meter_switched_off_does_nothing(tmp_path: Path) -> None:
    with EnergyMeter(tmp_path, node="box", options=Energy(enabled=False)) as meter:
        meter.mark("pretrain", 1)
        assert meter.joules() == 0.0
    assert not (tmp_path / "energy").exists()


def test_it_lives_beside_torch_and_gloo(tmp_path: Path, gpus: Path) -> None:
    """The meter starts before the process group, as launcher/train.py does it, and changes no result."""
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from persianmind.energy.meter.client import EnergyMeter
        from persianmind.recipe import Energy
        run = Path(sys.argv[1])
        meter = EnergyMeter(run, node="box", options=Energy(interval_s=0.5)).start()
        import torch, torch.distributed as dist
        dist.init_process_group("gloo", init_method=f"file://{run}/rendezvous", rank=0, world_size=1)
        value = torch.ones(4)
        meter.mark("pretrain", 1)
        steps = 0
        while meter.joules() == 0 or steps < 100:
            steps += 1
            dist.all_reduce(value)
            meter.mark("pretrain", steps)
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
    assert summarise(read_ledger(tmp_path), OPTIONS)["by_stage"]["pretrain"] > 0


def test_the_real_hardware_of_this_machine_is_counted(tmp_path: Path) -> None:
    """No fake at all: codecarbon as installed must give CPU and memory, whatever this machine is."""
    with EnergyMeter(tmp_path, node="box", options=OPTIONS) as meter:
        wait_for(lambda: meter.joules() > 0, "reading")
    components = summarise(read_ledger(tmp_path), OPTIONS)["by_component"]
    assert components["cpu"]["kwh"] > 0 and components["ram"]["kwh"] > 0
    assert os.getpid() == read_lines(tmp_path, "box")[0]["pid"]
