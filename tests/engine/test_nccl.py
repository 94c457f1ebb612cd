"""What is set for NCCL, CUDA and gloo, where, and that what the user set stays. GPUs are imitated."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pynvml
import pytest

from persianmind.common.device.choice import DeviceChoice
from persianmind.engine.deepspeed import nccl
from persianmind.engine.deepspeed.nccl import (
    EARLY,
    LATE,
    Situation,
    describe_settings,
    interface_of,
    interface_towards,
    set_variables,
)
from persianmind.engine.ranks import COLLECTIVE_SLACK_S, Ranks, collective_timeout_s
from tests.support.gpus import RTX_3090, Machine, decide_imitated

CPU = DeviceChoice("cpu", "as a test says")
LINK = pynvml.NVML_P2P_CAPS_INDEX_NVLINK
READ = pynvml.NVML_P2P_CAPS_INDEX_READ
PLAIN = Machine([RTX_3090] * 4)
BRIDGED = Machine([RTX_3090] * 4, peers={(LINK, 2, 3): pynvml.NVML_P2P_STATUS_OK})
SILENT = Machine([RTX_3090] * 2, peers={(LINK, 0, 1): -1, (READ, 0, 1): -1})


def set_on(
    device: DeviceChoice, root: Path, interface: str | None = None, ranks: int = 4, **environ: str
) -> tuple[dict[str, str], dict[str, str]]:
    """What the environment became, and what was said of it."""
    here = Situation(device, root, collective_timeout_s(1800.0), interface, ranks)
    said = set_variables(EARLY, here, environ) | set_variables(LATE, here, environ)
    return environ, said


@pytest.mark.parametrize(("machine", "p2p"), [(PLAIN, "1"), (BRIDGED, None), (SILENT, None)])
def test_imitated_gpus_lose_peer_access_only_where_none_of_them_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine, p2p: str | None
) -> None:
    """A bridge between two of four keeps it, and so does a driver that does not say."""
    environ, _ = set_on(decide_imitated(monkeypatch, tmp_path, machine), tmp_path)
    assert environ.get("NCCL_P2P_DISABLE") == p2p


def test_imitated_gpus_get_the_whole_table_with_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ, said = set_on(decide_imitated(monkeypatch, tmp_path, PLAIN), tmp_path, "enp3s0")
    assert environ == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "NCCL_P2P_DISABLE": "1",
        "NCCL_IB_DISABLE": "1",
        "NCCL_SOCKET_IFNAME": "enp3s0",
        "GLOO_SOCKET_IFNAME": "enp3s0",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
        "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": "2100",
    }
    assert [name.partition("=")[0] for name in said] == list(environ)
    assert "NCCL_IB_DISABLE=1 (there is no InfiniBand device)" in describe_settings(said)


def test_one_rank_alone_gets_one_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = decide_imitated(monkeypatch, tmp_path, Machine([RTX_3090]))
    assert set_on(device, tmp_path, ranks=1)[0]["NCCL_MAX_NCHANNELS"] == "1"
    assert "NCCL_MAX_NCHANNELS" not in set_on(device, tmp_path, ranks=2)[0]
    assert "NCCL_MAX_NCHANNELS" not in set_on(device, tmp_path, ranks=1, NCCL_MIN_NCHANNELS="2")[0]
    assert "NCCL_MAX_NCHANNELS" not in set_on(CPU, tmp_path, ranks=1)[0]


def test_imitated_gpus_and_what_the_user_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {
        "NCCL_P2P_DISABLE": "0",
        "NCCL_IB_DISABLE": "",
        "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64",
        "TORCH_NCCL_BLOCKING_WAIT": "1",
        "NCCL_SOCKET_IFNAME": "wg0",
        "CUDA_DEVICE_ORDER": "FASTEST_FIRST",
    }
    environ, said = set_on(decide_imitated(monkeypatch, tmp_path, PLAIN), tmp_path, "enp3s0", **mine)
    assert {name: environ[name] for name in mine} == mine
    assert not {"PYTORCH_ALLOC_CONF", "TORCH_NCCL_ASYNC_ERROR_HANDLING"} & set(environ)
    assert not any(name.partition("=")[0] in mine for name in said)


def test_imitated_gpus_with_infiniband_and_on_wsl2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sys/class/infiniband").mkdir(parents=True)
    device = decide_imitated(monkeypatch, tmp_path, PLAIN)
    assert set_on(device, tmp_path)[0]["NCCL_IB_DISABLE"] == "1"  # an empty folder is no device
    (tmp_path / "sys/class/infiniband/mlx5_0").mkdir()
    assert "NCCL_IB_DISABLE" not in set_on(device, tmp_path)[0]
    windows = decide_imitated(monkeypatch, tmp_path / "wsl", Machine([RTX_3090], wsl=True))
    assert "PYTORCH_ALLOC_CONF" not in set_on(windows, tmp_path)[0]


def test_a_cpu_gets_the_interface_alone(tmp_path: Path) -> None:
    assert set_on(CPU, tmp_path) == ({}, {})
    assert set_on(CPU, tmp_path, "enp3s0")[0] == {"GLOO_SOCKET_IFNAME": "enp3s0"}


def test_the_watchdog_speaks_before_collectives_and_nccls_own_monitor_end_the_process() -> None:
    from persianmind.train.callbacks.watchdog import MAX_TICK_S, TICKS_TO_THE_END

    assert COLLECTIVE_SLACK_S > MAX_TICK_S * (TICKS_TO_THE_END + 2)
    assert collective_timeout_s(7200.0) == 7200.0 + COLLECTIVE_SLACK_S


def test_torch_knows_the_names() -> None:
    """The allocator's variable was renamed once already."""
    import torch

    libraries = Path(torch.__file__).parent / "lib"
    text = (libraries / "libc10.so").read_bytes()
    assert b"PYTORCH_ALLOC_CONF" in text and b"PYTORCH_CUDA_ALLOC_CONF" in text
    header = libraries.parent / "include/torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp"
    names = header.read_text(encoding="utf-8")
    assert '"TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"' in names and '"TORCH_NCCL_ASYNC_ERROR_HANDLING"' in names


def test_the_interface_is_the_one_that_has_the_route(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interface_towards("127.0.0.1") is None  # no other machine reaches it
    assert interface_towards("no-such-host.invalid") is None
    outside = [
        (name, one.address)
        for name, addresses in psutil.net_if_addrs().items()
        for one in addresses
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]
    for name, address in outside:
        assert interface_towards(address) == name
    monkeypatch.setattr(nccl, "interface_towards", lambda address: f"towards {address}")
    monkeypatch.setenv("MASTER_ADDR", "192.168.1.10")
    assert interface_of(Ranks(4, 8, 0, 4)) == "towards 192.168.1.10"
    assert interface_of(Ranks(0, 4, 0, 4)) is None  # one node
