"""The listening TCP sockets of a machine (a network namespace), and whose they are.

python listeners.py    prints those of the namespace it runs in, as JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from ipaddress import ip_address

import psutil

from tests.cluster import namespaces
from tests.support.launch import ROOT

# What a command line holds -> the name that the table has; the first that fits.
NAMES = {
    "gcs_server": "gcs_server",
    "raylet/raylet": "raylet",
    "dashboard/dashboard.py": "dashboard",
    "ray::DashboardAgent": "dashboard agent",
    "ray::RuntimeEnvAgent": "runtime_env agent",
    "ray.util.client.server": "client server",
    "_private/monitor.py": "autoscaler",
    "ray-dashboard-": "dashboard",
    "ray::RayTrainWorker": "training worker",
    "ray::": "worker",
    "cluster/submit.py": "driver",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """address: "loopback", "node" (one address of the machine) or "all"."""

    port: int
    who: str
    address: str
    ip: str


def listening() -> list[Listener]:
    """Those of the namespace of this process."""
    return sorted(
        {
            Listener(one.laddr.port, _owner(one.pid), _scope(one.laddr.ip), one.laddr.ip)
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN
        },
        key=lambda one: (one.port, one.ip),
    )


def _scope(ip: str) -> str:
    address = ip_address(ip)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return "loopback" if mapped.is_loopback else "all" if mapped.is_unspecified else "node"


def _owner(pid: int | None) -> str:
    if pid is None:
        return "nobody"
    command = " ".join(psutil.Process(pid).cmdline())
    return next((name for mark, name in NAMES.items() if mark in command), command[:80])


def listening_on(node: int) -> list[Listener]:
    """Those of a machine."""
    command = [*namespaces.inside(node), sys.executable, "-m", "tests.cluster.listeners"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [Listener(**one) for one in json.loads(done.stdout)]


if __name__ == "__main__":
    print(json.dumps([asdict(one) for one in listening()]))
