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

import pytest
from ledgers import FAKE_NVML

from persianmind.common.errors import EnergyError, PowerLimitError
from persianmind.energy.power import sweep as module
from persianmind.energy.power.limits import read_limits, restore_from, restored_limits, set_limit
from persianmind.energy.power.sweep import best, default_limits, sweep

# Keeps one limit a GPU in a JSON file, as the driver does; refuses when the file says so.
NVIDIA_SMI = f"""#!{sys.executable}
import json, os, sys
path = os.environ["FAKE_LIMITS"]
state = json.load(open(path))
if "-pl" in sys.argv:
    if state.get("refuse"):
        print("Insufficient Permissions"); sys.exit(4)
    state["watts"][int(sys.argv[sys.argv.index("-i") + 1])] = float(sys.argv[sys.argv.index("-pl") + 1])
    state["history"].append(state["watts"][:])
    json.dump(state, open(path + ".new", "w")); os.replace(path + ".new", path)
elif any("query-gpu" in word for word in sys.argv):
    for index, watts in enumerate(state["watts"]):
        print(f"{{index}}, {{watts:.2f}}, 100.00, 400.00")
"""


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two GPUs at 350 W; returns the driver's state file."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    state = tmp_path / "limits.json"
    state.write_text(json.dumps({"watts": [350.0, 350.0], "history": []}))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_LIMITS", str(state))
    yield state


def watts_now(state: Path) -> list[float]:
    return json.loads(state.read_text())["watts"]


def rate(watts: float) -> float:
    """Steps a second: full speed above 250 W, falling below, as a real card does."""
    return 40.0 * min(1.0, watts / 250.0) ** 0.5


@pytest.fixture
def training(tmp_path: Path, limits: Path) -> Iterator[Path]:
    """A run folder that grows while the test runs, at the speed that the limit allows."""
    run, stop = tmp_path / "run", threading.Event()
    run.mkdir()

    def work() -> None:
        step = 0
        with (run / "metrics.jsonl").open("a") as handle:
            while not stop.wait(1 / rate(watts_now(limits)[0])):
                step += 1
                handle.write(json.dumps({"stage": "pretrain", "step": step, "useful_tokens": 1000}) + "\n")
                handle.flush()

    thread = threading.Thread(target=work)
    thread.start()
    yield run
    stop.set()
    thread.join()


class Integral:
    """Joules of both GPUs, integrated from the limit that holds at each reading."""

    def __init__(self, state: Path) -> None:
        self.state, self.last_s, self.total_j = state, time.monotonic(), 0.0

    def __call__(self) -> float:
        now_s = time.monotonic()
        self.total_j += sum(watts_now(self.state)) * (now_s - self.last_s)
        self.last_s = now_s
        return self.total_j


def test_the_sweep_finds_the_knee_and_puts_the_old_limits_back(training: Path, limits: Path) -> None:
    """Below 250 W speed falls with the root of power, so fewer watts still win: 150 W is best here."""
    trials = sweep(training, [350, 250, 150], steps=25, wait_s=10, gpu_joules=Integral(limits))
    assert [trial.limit_w for trial in trials] == [350, 250, 150]
    assert best(trials).limit_w == 150
    speeds = [trial.row()["tokens_per_s"] for trial in trials]
    assert speeds[2] < speeds[1] * 0.95
    per_joule = [trial.tokens_per_joule for trial in trials]
    assert per_joule[1] / per_joule[0] == pytest.approx(350 / 250, rel=0.25)
    assert watts_now(limits) == [350, 350]
    assert not (training / "energy" / "power-limits.json").exists()


def test_a_failure_in_the_middle_puts_the_old_limits_back(training: Path, limits: Path) -> None:
    def broken() -> float:
        raise EnergyError("counter gone")

    with pytest.raises(EnergyError, match="counter gone"):
        sweep(training, [200], steps=3, wait_s=10, gpu_joules=broken)
    assert [200, 200] in json.loads(limits.read_text())["history"]
    assert watts_now(limits) == [350, 350]


def test_a_run_that_does_not_train_changes_nothing(tmp_path: Path, limits: Path) -> None:
    with pytest.raises(EnergyError, match="start the training first"):
        sweep(tmp_path, [200], steps=3, wait_s=0.2, gpu_joules=Integral(limits))
    assert [200.0, 200.0] not in json.loads(limits.read_text())["history"]


def test_a_limit_the_card_does_not_allow_changes_nothing(training: Path, limits: Path) -> None:
    with pytest.raises(PowerLimitError, match="allows 100 to 400 W, not 50 W"):
        sweep(training, [200, 50], steps=3, wait_s=5, gpu_joules=Integral(limits))
    assert watts_now(limits) == [350, 350]


def test_without_rights_it_says_so(limits: Path) -> None:
    limits.write_text(json.dumps({"watts": [350.0], "history": [], "refuse": True}))
    with pytest.raises(PowerLimitError, match="run it as root"):
        set_limit(0, 200)


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PowerLimitError, match="on a CPU"):
        read_limits()


def test_default_limits_stay_inside_what_the_card_allows(limits: Path) -> None:
    assert default_limits(read_limits()) == [210, 245, 280, 315, 350]
    limits.write_text(json.dumps({"watts": [150.0, 350.0], "history": []}))
    assert min(default_limits(read_limits())) == 100


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
def test_signals_restore_at_once_and_a_kill_at_the_next_call(
    tmp_path: Path, limits: Path, number: int
) -> None:
    note = tmp_path / "power-limits.json"
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEPING, str(note)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "set\n"
    assert watts_now(limits) == [200, 350]
    process.send_signal(number)
    process.wait(10)
    process.stdout.close()
    if number == signal.SIGKILL:
        assert watts_now(limits) == [200, 350] and note.exists()
        with restored_limits(note) as now:
            assert [gpu.watts for gpu in now] == [350, 350]
    assert watts_now(limits) == [350, 350]
    assert not restore_from(note)


def test_the_counter_of_the_sweep_reads_the_gpus(tmp_path: Path) -> None:
    """In a process of its own, because codecarbon looks for NVML when it is imported."""
    code = (
        "import time; from persianmind.energy.power.sweep import gpu_counter; c = gpu_counter(); a = c(); "
        "t = time.monotonic(); time.sleep(0.5); print((c() - a) / (time.monotonic() - t))"
    )
    control = tmp_path / "control.json"
    control.write_text(json.dumps({"watts": [300.0, 200.0]}))
    environment = {**os.environ, "PYTHONPATH": str(FAKE_NVML), "FAKE_NVML_CONTROL": str(control),
                   "PATH": f"{FAKE_NVML}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(500, rel=0.05)
    assert module.SETTLE_STEPS >= 1
