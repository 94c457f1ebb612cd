"""How ranks find each other: the launcher's port, this machine's name, the interfaces that are named."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping

import psutil

from persianmind.checks.base import CheckContext, CheckResult

# Where DeepSpeed's launcher lets ranks meet unless it is told another port.
LAUNCHER_PORT = 29500
INTERFACES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def check_network(context: CheckContext) -> Iterator[CheckResult]:
    """Three lines; sends nothing."""
    yield port_finding(LAUNCHER_PORT)
    yield name_finding(socket.gethostname())
    yield interface_finding(os.environ, psutil.net_if_addrs())


def port_finding(port: int) -> CheckResult:
    """Whether ranks can meet at this port."""
    with socket.socket() as probe:
        # As the launcher's own server does: a port of a run that has just ended can be used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return CheckResult.warn(
                "port",
                f"{port}, where the launcher lets ranks meet, cannot be used ({error.strerror}): another "
                "run, or a program that `ss -ltnp` names; `deepspeed --master_port 29501` takes another",
            )
    return CheckResult.ok("port", f"{port} is free")


def name_finding(host: str) -> CheckResult:
    """Whether this machine knows its own name: gloo looks its address up by it."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return CheckResult.warn(
            "host name",
            f"{host} has no address, so ranks cannot find each other by it: add '127.0.1.1 {host}' to "
            "/etc/hosts, or set GLOO_SOCKET_IFNAME=lo on a single machine",
        )
    return CheckResult.ok("host name", f"{host} is {', '.join(sorted(found))}")


def interface_finding(environ: Mapping[str, str], present: Iterable[str]) -> CheckResult:
    """Whether the interfaces that the environment names are here. NCCL takes prefixes, "^" and "="."""
    names = list(present)
    for variable in INTERFACES:
        wanted = environ.get(variable, "")
        if not wanted or wanted.startswith("^"):
            continue
        exact = wanted.startswith("=") or variable.startswith("GLOO")
        entries = wanted.removeprefix("=").split(",")
        if not any(name == one if exact else name.startswith(one) for one in entries for name in names):
            return CheckResult.fail(
                "interfaces", f"{variable}={wanted} names none of {', '.join(names)}; unset or correct it"
            )
    return CheckResult.ok("interfaces", ", ".join(names))
