"""The launcher's port, this machine's name, and interfaces that the environment names."""

from __future__ import annotations

import socket

import pytest

from persianmind.checks.base import Level
from persianmind.checks.network import interface_finding, name_finding, port_finding
from tests.support.launch import free_port

PRESENT = ["lo", "enp5s0", "docker0"]


def test_a_port_that_is_taken_is_said_with_the_flag() -> None:
    port = free_port()
    assert port_finding(port).level is Level.OK
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        found = port_finding(port)
    assert found.level is Level.WARN and "--master_port" in found.detail


def test_a_name_without_an_address() -> None:
    assert name_finding("localhost").level is Level.OK
    found = name_finding("no-such-machine.invalid")
    assert found.level is Level.WARN and "/etc/hosts" in found.detail


@pytest.mark.parametrize(
    ("variable", "value", "level"),
    [
        ("NCCL_SOCKET_IFNAME", "enp", Level.OK),  # a prefix
        ("NCCL_SOCKET_IFNAME", "=enp5s0", Level.OK),
        ("NCCL_SOCKET_IFNAME", "=enp", Level.FAIL),
        ("NCCL_SOCKET_IFNAME", "^docker", Level.OK),
        ("NCCL_SOCKET_IFNAME", "ib0,enp5s0", Level.OK),
        ("NCCL_SOCKET_IFNAME", "eth0", Level.FAIL),
        ("GLOO_SOCKET_IFNAME", "enp5s0", Level.OK),
        ("GLOO_SOCKET_IFNAME", "enp", Level.FAIL),  # gloo takes whole names
    ],
)
def test_interfaces_that_are_not_here(variable: str, value: str, level: Level) -> None:
    assert interface_finding({variable: value}, PRESENT).level is level
