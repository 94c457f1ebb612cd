"""Machines of a cluster as network namespaces: own addresses, own loopback, one switch between them.

    python tests/cluster/namespaces.py make 3      # pm-test-0 .. pm-test-2 and the switch pm-test-sw
    python tests/cluster/namespaces.py remove

Nothing is reachable from outside and nothing outside is reachable from them: there is no route out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

PREFIX = "pm-test"
SWITCH = f"{PREFIX}-sw"
INTERFACE = "lan7"  # no name that gloo or NCCL would guess
NETWORK = "10.213.77"


def unavailable() -> str | None:
    """Why namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip` (iproute2)"
    probe = subprocess.run(
        ["ip", "netns", "add", f"{PREFIX}-probe"], capture_output=True, text=True, check=False
    )
    subprocess.run(["ip", "netns", "del", f"{PREFIX}-probe"], capture_output=True, check=False)
    return None if probe.returncode == 0 else f"network namespaces are refused here: {probe.stderr.strip()}"


def name(node: int) -> str:
    """The namespace of a machine."""
    return f"{PREFIX}-{node}"


def address(node: int) -> str:
    """The address of a machine."""
    return f"{NETWORK}.{node + 1}"


def inside(node: int) -> list[str]:
    """The prefix that runs a command on a machine."""
    return ["ip", "netns", "exec", name(node)]


def make(nodes: int) -> None:
    """Creates the machines and the switch; leftovers of an earlier, killed test go first."""
    remove()
    _ip("netns", "add", SWITCH)
    _ip("-n", SWITCH, "link", "add", "bridge", "type", "bridge")
    _ip("-n", SWITCH, "link", "set", "bridge", "up")
    for node in range(nodes):
        _ip("netns", "add", name(node))
        port = f"port{node}"
        _ip("-n", SWITCH, "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", name(node))
        _ip("-n", SWITCH, "link", "set", port, "master", "bridge", "up")
        _ip("-n", name(node), "addr", "add", f"{address(node)}/24", "dev", INTERFACE)
        for device in (INTERFACE, "lo"):
            _ip("-n", name(node), "link", "set", device, "up")


def remove() -> None:
    """Deletes every namespace of ours; links go with them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        if line.split()[0].startswith(f"{PREFIX}-"):
            subprocess.run(["ip", "netns", "del", line.split()[0]], capture_output=True, check=False)


@contextlib.contextmanager
def machines(nodes: int) -> Iterator[None]:
    """Machines for the block."""
    try:
        make(nodes)
        yield
    finally:
        remove()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"] and len(sys.argv) == 3:
        make(int(sys.argv[2]))
    elif sys.argv[1:] == ["remove"]:
        remove()
    else:
        sys.exit(__doc__)
