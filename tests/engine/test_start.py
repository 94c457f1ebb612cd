"""From the decision to the process group; torch's and the driver's answers are imitated in children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.launch import BIN, ROOT, free_port

# What the installed CPU build of torch answers in place of a CUDA build on this imitated machine.
IMITATED = """
import json, os, sys
from pathlib import Path
from tests.support.gpus import CUDA_13, RTX_2080, RTX_3090, Machine
from persianmind.common.device import choice
root, machine = Path(sys.argv[1]), eval(sys.argv[2], {"Machine": Machine, "A": RTX_3090, "B": RTX_2080})
sys.modules["pynvml"] = machine.nvml()
machine.write_root(root)
real = choice.decide_device
choice.decide_device = lambda: real(root, torch_build=lambda: CUDA_13)
"""
START = (
    IMITATED
    + """
from persianmind.engine.deepspeed import start
start.prepare_environment()
import torch
opens = sys.argv[3] == "opens"
torch.cuda.is_available = lambda: opens
torch.cuda.device_count = lambda: len(machine.kinds) if opens else 0
seen = {}
torch.cuda.set_device = lambda device: seen.update(set_device=str(device))
torch.cuda.current_device = lambda: 0
torch.distributed.init_process_group = lambda backend, **options: seen.update(backend=backend, **options)
torch.distributed.is_initialized = lambda: "backend" in seen
torch.distributed.get_backend = lambda *_, **__: seen["backend"]
torch.distributed.get_world_size = lambda *_, **__: 1
torch.distributed.get_rank = lambda *_, **__: 0
torch.distributed.barrier = lambda: seen.update(barrier=True)
from deepspeed.accelerator import get_accelerator
from persianmind.common.console import run_guarded
from persianmind.common.log import configure_logging
from persianmind.engine.ranks import Ranks
configure_logging(0)
code = run_guarded(lambda: start.start_distributed(Ranks(0, 1, 0, 1), 600.0))
alone = {name: str(value) for name, value in seen.items()}
seen.clear()
if code == 0:  # as one of two, over a store
    start._join(Ranks(1, 2, 1, 2), start.timedelta(seconds=900), object())
joined = {name: str(value) for name, value in seen.items() if name != "store"}
wanted = ("DS_ACCELERATOR", "CUDA_", "NCCL_", "TORCH_NCCL", "PYTORCH_ALLOC", "CUBLAS_")
environ = {name: value for name, value in os.environ.items() if name.startswith(wanted)}
found = {"code": code, "seen": alone, "joined": joined, "environ": environ}
print(json.dumps(found | {"accelerator": get_accelerator().device_name()}))
os._exit(0)
"""
)


def imitate(tmp_path: Path, machine: str, opens: str = "opens", **environ: str) -> tuple[dict[str, Any], str]:
    """What a start did on an imitated machine, and all it printed."""
    clean = {n: v for n, v in os.environ.items() if n not in ("DS_ACCELERATOR", "CUDA_VISIBLE_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path), machine, opens],
        env={**clean, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found, done.stdout + done.stderr


@pytest.mark.integration
def test_imitated_gpus_choose_cuda_and_nccl_with_timeouts_after_the_watchdog(tmp_path: Path) -> None:
    found, text = imitate(tmp_path, "Machine([A] * 2)")
    assert (found["code"], found["accelerator"]) == (0, "cuda"), text
    assert found["seen"]["backend"] == "nccl" and found["seen"]["timeout"] == "0:15:00"  # 600 s + 300 s
    assert found["seen"]["set_device"] == "0" and found["seen"]["barrier"] == "True"
    joined = {"backend": "nccl", "timeout": "0:15:00", "rank": "1", "world_size": "2", "device_id": "cuda:0"}
    assert found["joined"] == joined  # the device is given: NCCL connects at once
    environ = found["environ"]
    assert environ["DS_ACCELERATOR"] == "cuda" and environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environ["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"] == "900" and environ["NCCL_P2P_DISABLE"] == "1"
    (line,) = (line for line in text.splitlines() if line.startswith("environment on "))
    assert "NCCL_P2P_DISABLE=1 (the driver says" in line


@pytest.mark.integration
def test_imitated_gpus_that_are_hidden_choose_the_cpu_and_gloo(tmp_path: Path) -> None:
    found, text = imitate(tmp_path, "Machine([A] * 2)", CUDA_VISIBLE_DEVICES="")
    assert (found["code"], found["accelerator"], found["seen"]["backend"]) == (0, "cpu", "gloo"), text
    assert found["environ"] == {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    assert "device_id" not in found["joined"]


@pytest.mark.integration
def test_imitated_old_driver_is_refused_where_torch_alone_would_take_the_cpu(tmp_path: Path) -> None:
    """Control: DeepSpeed's own choice on the same imitated machine is the CPU, without a word of ours."""
    found, text = imitate(tmp_path, "Machine([A], '535.183.01')", "does not open")
    assert found["code"] == 2 and not found["seen"]
    assert "persianmind: error: the NVIDIA driver 535.183.01 is too old for torch" in text
    assert found["accelerator"] == "cpu" and "DS_ACCELERATOR" not in found["environ"]


@pytest.mark.integration
def test_imitated_gpus_that_torch_cannot_open_are_refused(tmp_path: Path) -> None:
    found, text = imitate(tmp_path, "Machine([A])", "does not open")
    assert found["code"] == 2 and "backend" not in found["seen"]
    assert "cannot open a GPU: `python -c 'import torch; torch.cuda.init()'` says why" in text


PROBE = (
    IMITATED.replace("sys.argv[1]", "os.environ['FAKE_ROOT']").replace("sys.argv[2]", "'Machine([A] * 2)'")
    + """
from persianmind.engine.deepspeed import start
given = os.environ["CUDA_VISIBLE_DEVICES"]
if os.environ.get("CONTROL"):
    start._launcher_unhid_gpus = lambda: False
start.prepare_environment()
print("rank", os.environ["RANK"], "given", given, "->", os.environ["DS_ACCELERATOR"], flush=True)
"""
)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("hidden", "control", "expected"),
    [("", "", "cpu"), ("-1", "", "cpu"), ("", "1", "cuda")],
)
def test_imitated_gpus_stay_hidden_under_the_real_launcher(
    tmp_path: Path, hidden: str, control: str, expected: str
) -> None:
    """The launcher numbers its CPU ranks in CUDA_VISIBLE_DEVICES. Control: without our look at the launcher's
    own environment the hidden GPUs are used."""
    script = tmp_path / "probe.py"
    script.write_text(PROBE, encoding="utf-8")
    clean = {n: v for n, v in os.environ.items() if n not in ("DS_ACCELERATOR", "CUDA_VISIBLE_DEVICES")}
    visible = {"CUDA_VISIBLE_DEVICES": hidden}
    done = subprocess.run(
        [str(BIN / "deepspeed"), "--num_accelerators", "1", "--master_port", str(free_port()), str(script)],
        env={
            **clean,
            **visible,
            "CONTROL": control,
            "FAKE_ROOT": str(tmp_path / "root"),
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"rank 0 given 0 -> {expected}" in done.stdout, done.stdout + done.stderr
