"""A Ray dashboard runs code for whoever reaches it: it is on loopback, or it is seen to ask for a token."""

from __future__ import annotations

import http.client
import json
import logging
import os
import urllib.error
import urllib.request
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from persianmind.common.errors import ClusterError

TUNNEL = "ssh -N -L 8265:127.0.0.1:8265 HEAD, then --address http://127.0.0.1:8265"
UNENCRYPTED_FLAG = "--send-token-unencrypted"
JOBS_PATH, VERSION_PATH = "/api/jobs/", "/api/version"
TIMEOUT_S = 10.0
REFUSALS = (401, 403)
ANSWER_LIMIT_BYTES = 1 << 16
logger = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether a dashboard at this host is reachable from its own machine only. Names count as not."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def on_loopback(url: str) -> bool:
    """Whether this URL's host is this machine itself, or a tunnel's end on it."""
    return is_loopback(urlsplit(url).hostname or "")


def dashboard_url(address: str) -> str:
    """The one form of an address that everything else is given: http(s)://HOST[:PORT], no more.

    Raises:
        ClusterError: another scheme (Ray would import a module of that name), no host, a wrong port, or a
            password in it, which would end in logs.
    """
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or "\\" in parts.netloc:
        raise ClusterError(
            "--address wants http://HOST:8265 or https://HOST, without a user or password; the token comes "
            "from RAY_AUTH_TOKEN_PATH"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def token_is_set() -> bool:
    """Whether this process presents a token: the mode is on, and a token lies where Ray looks for it."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode != "token":
        return False
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or _token_path().is_file()


def read_token() -> str | None:
    """The token that this process presents, None where it presents none."""
    if not token_is_set():
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    return _token_path().read_text(encoding="utf-8").strip()


def _token_path() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").expanduser()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would hand the token to whatever server a redirect names."""

    def redirect_request(self, *_: Any) -> None:
        return None


def ask_dashboard(url: str, path: str, token: str | None) -> tuple[int | str, dict[str, Any]]:
    """One request, whose redirects are not followed and which on loopback goes through no proxy.

    Returns:
        (HTTP status, the JSON object of the answer), or (why there is no answer, {}).
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    direct = [urllib.request.ProxyHandler({})] if on_loopback(url) else []
    opener = urllib.request.build_opener(_NoRedirect, *direct)
    try:
        with opener.open(
            urllib.request.Request(f"{url}{path}", headers=headers), timeout=TIMEOUT_S
        ) as answer:
            return int(answer.status), _json_object(answer.read(ANSWER_LIMIT_BYTES))
    except urllib.error.HTTPError as error:
        return int(error.code), {}
    except (OSError, ValueError, http.client.HTTPException) as error:
        return " ".join(str(error).split())[:120], {}


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_dashboard(url: str) -> None:
    """Asks the dashboard without a token; what this process itself would present plays no part.

    On loopback an open one is only warned of: it is closed to the network.

    Raises:
        ClusterError: beyond loopback, unless the answer is 401 or 403.
    """
    status, _ = ask_dashboard(url, JOBS_PATH, None)
    if status in REFUSALS:
        return
    if on_loopback(url):
        if status == 200:
            logger.warning(f"{url} asks for no token: every user of that machine can run code on the cluster")
        return
    if isinstance(status, str):
        raise ClusterError(f"no Ray dashboard answers at {url} ({status}); is the head running? {TUNNEL}")
    raise ClusterError(
        f"the Ray dashboard at {url} answers {status} to a request without a token, where 401 or 403 is due: "
        "anyone on that network may run code on the cluster; start every node with RAY_AUTH_MODE=token "
        f"(docs/cluster.md), or keep the dashboard on 127.0.0.1 and use a tunnel: {TUNNEL}"
    )


def token_crosses_network_unencrypted(url: str) -> bool:
    """Whether a token sent to this URL can be read on its way."""
    return urlsplit(url).scheme == "http" and not on_loopback(url)


def check_token_way(url: str, *, unencrypted_allowed: bool) -> None:
    """Refuses to send this process's token where it can be read on its way.

    Raises:
        ClusterError: plain http beyond loopback, not allowed by name.
    """
    if token_is_set() and token_crosses_network_unencrypted(url) and not unencrypted_allowed:
        raise ClusterError(
            f"the token would cross the network to {url} unencrypted; use a tunnel ({TUNNEL}), or https, or, "
            f"on a network that is yours alone, add {UNENCRYPTED_FLAG}"
        )
