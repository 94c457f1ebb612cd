"""Power limits on fake GPUs whose speed and power follow the limit, and a training that really runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.errors import DamagedFileError, EnergyError, PowerLimitError
from persianmind.energy.power.limits import read_limits, restore_from, restored_limits, set_limit
from persianmind.energy.power.sweep import TAIL_BYTES, Trial, best, default_limits, last_step, sweep
from persianmind.run.folder import RunFolder
from tests.energy.ledgers import fake_nvml_environment, step_line, use_fake_nvml


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two fake GPUs with a limit of 350 W; returns the driver's state file."""
    control = tmp_path / "control.json"
    use_fake_nvml(monkeypatch, control, [300.0, 300.0], limits=[350.0, 350.0])
    return control


def change(control: Path, **changes: Any) -> None:
    control.write_text(json.dumps({**json.loads(control.read_text()), **changes}))


def watts_now(control: Path) -> list[float]:
    limits: list[float] = json.loads(control.read_text())["limits"]
    return limits


def history(control: Path) -> list[list[float]]:
    states: list[list[float]] = json.loads(control.read_text()).get("history", [])
    return states


def rate(watts: float) -> float:
    """Steps per second: full speed above 250 W, falling below, as a real GPU does."""
    return 80.0 * min(1.0, watts / 250.0) ** 0.5


@pytest.fixture
def training(tmp_path: Path, gpus: Path) -> Iterator[RunFolder]:
    """A run folder that grows while the test runs, at the speed that the limit allows."""
    folder, stop = RunFolder(tmp_path / "run"), threading.Event()
    folder.energy.mkdir(parents=True)

    def work() -> None:
        step = 0
        with folder.metrics.open("a") as handle:
            while not stop.wait(1 / rate(watts_now(gpus)[0])):
                step += 1
                handle.write(step_line(step, 1000))
                handle.flush()

    thread = threading.Thread(target=work)
    thread.start()
    yield folder
    stop.set()
    thread.join()


class Integral:
    """Joules of both GPUs, integrated from the limit that holds at each reading."""

    def __init__(self, control: Path) -> None:
        self.control, self.last_s, self.total_j = control, time.monotonic(), 0.0

    def __call__(self) -> float:
        now_s = time.monotonic()
        self.total_j += sum(watts_now(self.control)) * (now_s - self.last_s)
        self.last_s = now_s
        return self.total_j


def test_the_sweep_finds_the_knee_and_puts_the_old_limits_back(training: RunFolder, gpus: Path) -> None:
    """Below 250 W speed falls with the root of power, so fewer watts still win: 150 W is best here."""
    trials = sweep(training, [350, 150], steps=25, wait_s=10, gpu_joules=Integral(gpus))
    assert [trial.limit_w for trial in trials] == [350, 150]
    assert best(trials).limit_w == 150
    assert [trial.tokens for trial in trials] == [1000 * trial.steps for trial in trials]
    assert all(trial.steps >= 25 for trial in trials)
    assert watts_now(gpus) == [350, 350] and [150, 150] in history(gpus)
    assert not training.power_limits.exists()


def test_tokens_per_joule_follow_from_the_counts() -> None:
    fast, slow = Trial(350, 25, 25_000, 5.0, 3500.0), Trial(150, 25, 25_000, 7.0, 2100.0)
    assert fast.as_json()["tokens_per_s"] == 5000 and slow.tokens_per_joule == pytest.approx(11.9, rel=1e-2)
    assert best([fast, slow]) is slow


def test_the_newest_step_is_read_from_the_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert last_step(folder) == 0
    folder.metrics.write_text(
        "".join(step_line(step, 10) for step in range(1, 301)) + step_line(301, 10)[:50]
    )
    assert folder.metrics.stat().st_size > 2 * TAIL_BYTES
    assert last_step(folder) == 300


def test_a_failure_in_the_middle_puts_the_old_limits_back(training: RunFolder, gpus: Path) -> None:
    def broken() -> float:
        raise EnergyError("counter gone")

    with pytest.raises(EnergyError, match="counter gone"):
        sweep(training, [200], steps=3, wait_s=10, gpu_joules=broken)
    assert [200, 200] in history(gpus)
    assert watts_now(gpus) == [350, 350]


def test_a_run_that_does_not_train_changes_nothing(tmp_path: Path, gpus: Path) -> None:
    with pytest.raises(EnergyError, match="start the training first"):
        sweep(RunFolder(tmp_path), [200], steps=3, wait_s=0.2, gpu_joules=Integral(gpus))
    assert [200.0, 200.0] not in history(gpus)


def test_a_limit_the_gpu_does_not_allow_changes_nothing(training: RunFolder, gpus: Path) -> None:
    with pytest.raises(PowerLimitError, match="allows 100 to 400 W, not 50 W"):
        sweep(training, [200, 50], steps=3, wait_s=5, gpu_joules=Integral(gpus))
    assert [200, 200] not in history(gpus) and watts_now(gpus) == [350, 350]


def test_without_rights_it_says_so(gpus: Path) -> None:
    change(gpus, refuse=True)
    with pytest.raises(PowerLimitError, match="run it as root"):
        set_limit(0, 200)


def test_a_gpu_without_limits_is_named(gpus: Path) -> None:
    control = json.loads(gpus.read_text())
    del control["limits"]
    gpus.write_text(json.dumps(control))
    with pytest.raises(PowerLimitError, match="cannot be read: Not Supported"):
        read_limits()


def test_without_a_gpu_it_says_so(gpus: Path) -> None:
    change(gpus, no_driver=True)
    with pytest.raises(PowerLimitError, match="on a CPU"):
        read_limits()
    change(gpus, no_driver=False, watts=[])
    with pytest.raises(PowerLimitError, match="lists no GPU"):
        read_limits()


def test_the_real_library_without_a_driver_says_so() -> None:
    """The fake's errors are the library's: without its driver the real one ends in the same sentence."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        with pytest.raises(PowerLimitError, match="on a CPU"):
            read_limits()
    else:
        assert read_limits()


def test_default_limits_stay_inside_what_the_gpu_allows(gpus: Path) -> None:
    assert default_limits(read_limits()) == [210, 245, 280, 315, 350]
    change(gpus, limits=[150.0, 350.0])
    assert min(default_limits(read_limits())) == 100


def test_a_damaged_note_is_named_and_kept(tmp_path: Path, gpus: Path) -> None:
    note = tmp_path / "power-limits.json"
    with restored_limits(note):
        text = note.read_text()
    note.write_text(text.replace("350", "351"))
    with pytest.raises(DamagedFileError, match=r"power-limits\.json"):
        restore_from(note)
    assert note.exists() and watts_now(gpus) == [350, 350]


SWEEPING = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from persianmind.energy.power.limits import restored_limits, set_limit
    from persianmind.energy.power.sweep import _signals_as_exceptions
    with _signals_as_exceptions(), restored_limits(Path(sys.argv[1])):
        set_limit(0, 200)
        print("set", flush=True)
        time.sleep(30)
""")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_restore_at_once_and_a_kill_at_the_next_call(tmp_path: Path, gpus: Path, number: int) -> None:
    note = tmp_path / "power-limits.json"
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEPING, str(note)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "set\n"
    assert watts_now(gpus) == [200, 350]
    process.send_signal(number)
    process.wait(30)
    process.stdout.close()
    if number == signal.SIGKILL:
        assert watts_now(gpus) == [200, 350] and note.exists()
        with restored_limits(note) as now:
            assert [gpu.watts for gpu in now] == [350, 350]
    assert watts_now(gpus) == [350, 350]
    assert not restore_from(note)


def test_the_counter_of_the_sweep_reads_the_gpus(tmp_path: Path) -> None:
    """In a process of its own, because codecarbon looks for NVML when it is imported."""
    code = (
        "import time; from persianmind.energy.power.sweep import gpu_counter; b = time.monotonic(); "
        "c = gpu_counter(); l = time.monotonic(); a = c(); time.sleep(0.3); "
        "m = time.monotonic(); d = c() - a; "
        "print(d, m - l, time.monotonic() - b)"
    )
    environment = {**os.environ, **fake_nvml_environment(tmp_path / "control.json", [300.0, 200.0])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    joules, at_least_s, at_most_s = map(float, done.stdout.split())
    assert 500 * 0.9 * at_least_s <= joules <= 500 * at_most_s
