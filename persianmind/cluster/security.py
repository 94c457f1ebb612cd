"""A Ray dashboard is remote code execution for whoever reaches it: loopback, or a token."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from persianmind.common.errors import ClusterError

TUNNEL = "ssh -N -L 8265:127.0.0.1:8265 HEAD, then --address http://127.0.0.1:8265"


def is_loopback(host: str) -> bool:
    """Whether a dashboard at this host is reachable from its own machine only. Names count as not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def token_is_set() -> bool:
    """Whether this process presents a token: the mode is on, and a token lies where Ray looks for it."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode != "token":
        return False
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


def read_token() -> str | None:
    """The token that this process presents, None where it presents none."""
    if not token_is_set():
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return path.read_text(encoding="utf-8").strip()


def check_dashboard(url: str, *, authenticated: bool) -> None:
    """Refuses to use a cluster that anyone on the network could run code on.

    Raises:
        ClusterError: the dashboard listens beyond loopback and there is no token authentication.
    """
    host = urlsplit(url if "://" in url else f"http://{url}").hostname or ""
    if host and not is_loopback(host) and not authenticated:
        raise ClusterError(
            f"the Ray dashboard at {url} listens beyond loopback without a token, so anyone on that network "
            "can run code on the cluster; start every node with RAY_AUTH_MODE=token (see docs/cluster.md), "
            f"or keep the dashboard on 127.0.0.1 and use a tunnel: {TUNNEL}"
        )
