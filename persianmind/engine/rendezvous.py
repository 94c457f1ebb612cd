"""Where the store that a process group is made with listens: on the address it is reached by.

Left alone torch listens on every interface and asks nobody who they are, on a single machine as well.
"""

from __future__ import annotations

import importlib
import socket
from ipaddress import ip_address
from typing import Any


def store_listener(host: str, port: int) -> int | None:
    """The listening socket (its descriptor) of a `TCPStore` that this process hosts, on this address alone.

    None, which means every interface, where the address is a name (many systems take their own for 127.0.1.1,
    which no other machine reaches), is not of this machine, or its port is taken; of that torch complains.
    """
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        return socket.create_server((host, port), family=family).detach()
    except (ValueError, OSError):
        return None


def bind_rendezvous() -> None:
    """The same for stores that torch makes by itself from MASTER_ADDR and MASTER_PORT, in this process."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    def bound_store(host_name: str, port: int, *, is_master: bool, **more: Any) -> TCPStore:
        listener = store_listener(host_name, port) if is_master else None
        return TCPStore(
            host_name=host_name, port=port, is_master=is_master, master_listen_fd=listener, **more
        )

    # The module: torch.distributed has a function of this name.
    module: Any = importlib.import_module("torch.distributed.rendezvous")
    module.TCPStore = bound_store
