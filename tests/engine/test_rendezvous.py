"""The store of a process group listens where it is reached, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

import psutil
import pytest

from persianmind.engine.rendezvous import bind_rendezvous, store_listener
from persianmind.engine.rollcall import open_store
from tests.support.launch import free_port

TIMEOUT = timedelta(seconds=30)
EVERYWHERE = {"::", "0.0.0.0"}


def by_torch(address: str, port: int) -> Any:
    """As env:// makes it, for Ray's groups and for a group of one."""
    return import_module("torch.distributed.rendezvous")._create_c10d_store(address, port, 0, 1, TIMEOUT)


def by_us(address: str, port: int) -> Any:
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    return open_store(host=True, timeout_s=30)


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # Whatever a test before this one has bound in this process.
    monkeypatch.setattr(import_module("torch.distributed.rendezvous"), "TCPStore", TCPStore)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")


def heard_on(make: Callable[[str, int], Any], address: str) -> set[str]:
    """The addresses that the store of this port listens on; it works as well."""
    port = free_port()
    store = make(address, port)
    store.set("key", "value")
    assert store.get("key") == b"value"
    found = psutil.Process().net_connections("tcp")
    return {one.laddr.ip for one in found if one.laddr.port == port and one.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("make", [by_torch, by_us])
def test_it_listens_on_its_address_alone(make: Callable[[str, int], Any]) -> None:
    bind_rendezvous()
    bind_rendezvous()  # once more changes nothing
    assert heard_on(make, "127.0.0.1") == {"127.0.0.1"}


def test_control_torch_by_itself_listens_everywhere() -> None:
    assert heard_on(by_torch, "127.0.0.1") <= EVERYWHERE


def test_a_name_stays_as_torch_has_it() -> None:
    """Its address here may be one that others do not reach."""
    bind_rendezvous()
    assert heard_on(by_torch, "localhost") <= EVERYWHERE


def test_an_address_of_another_machine_and_a_taken_port_are_left_to_torch() -> None:
    assert store_listener("192.0.2.1", free_port()) is None
    port = free_port()
    descriptor = store_listener("127.0.0.1", port)
    assert descriptor is not None
    assert store_listener("127.0.0.1", port) is None
    os.close(descriptor)
