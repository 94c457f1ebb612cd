"""Doctor's check of the Ray cluster that the environment names: it answers, it asks for a token, it fits."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from persianmind.checks.base import Check, CheckContext, CheckResult
from persianmind.cluster.security import TUNNEL, is_loopback, read_token

TIMEOUT_S = 5.0
DASHBOARD, CLUSTER = "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"


def check_ray(context: CheckContext) -> Iterator[CheckResult]:
    """What $RAY_API_SERVER_ADDRESS and $RAY_ADDRESS name; starts no Ray."""
    yield from ray_findings(os.environ)


def ray_findings(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """One line for each address; one where there is none."""
    dashboard, cluster = environ.get(DASHBOARD, ""), environ.get(CLUSTER, "")
    if cluster.startswith(("http://", "https://")) and not dashboard:
        dashboard, cluster = cluster, ""
    if dashboard:
        yield dashboard_finding(dashboard, read_token())
    if cluster and cluster not in ("auto", "local"):
        yield _head_finding(cluster)
    if not dashboard and (not cluster or cluster in ("auto", "local")):
        yield CheckResult.ok("ray", f"no cluster is named ({DASHBOARD}, {CLUSTER}); one machine needs none")


def dashboard_finding(url: str, token: str | None) -> CheckResult:
    """Whether the dashboard answers, to whom, and whether its Ray is this machine's.

    Args:
        url: http://HOST:PORT.
        token: what this process would present, None without one.
    """
    without, found = _ask(url, None)
    if isinstance(without, str):
        return CheckResult.fail("ray", f"{url} does not answer ({without}); is the head running? {TUNNEL}")
    if without == 200 and not is_loopback(urlsplit(url).hostname or ""):
        return CheckResult.fail(
            "ray",
            f"{url} answers anybody without a token, so anyone on that network can run code on the cluster; "
            f"start every node with RAY_AUTH_MODE=token (docs/cluster.md), or: {TUNNEL}",
        )
    status: int | str = without
    if token is not None:
        status, found = _ask(url, token)
    if status in (401, 403):
        what = "wants a token and none is set" if token is None else "refuses the token"
        return CheckResult.fail(
            "ray",
            f"{url} {what}; copy the head's token file here and set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH",
        )
    if status != 200:
        return CheckResult.fail("ray", f"{url} answers {status}; is that a Ray dashboard?")
    theirs, ours = found.get("ray_version"), version("ray")
    if theirs != ours:
        return CheckResult.fail(
            "ray", f"{url} runs Ray {theirs}, this machine has {ours}: install the same on every machine"
        )
    how = "with a token" if without != 200 else "without a token, on loopback"
    return CheckResult.ok("ray", f"{url} answers {how}, Ray {theirs}")


def _ask(url: str, token: str | None) -> tuple[int | str, dict[str, Any]]:
    """(HTTP status, the answer), or why there is none."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{url.rstrip('/')}/api/version", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            found = json.loads(answer.read())
            return int(answer.status), found if isinstance(found, dict) else {}
    except urllib.error.HTTPError as error:
        return int(error.code), {}
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())[:120], {}


def _head_finding(address: str) -> CheckResult:
    """Whether anything listens at HOST:PORT, with or without ray:// before it."""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        if parts.hostname is None or parts.port is None:
            raise ValueError("no HOST:PORT")
        socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return CheckResult.fail(
            "ray head", f"{CLUSTER}={address}: nothing answers there ({error}); start the head, or unset it"
        )
    return CheckResult.ok("ray head", f"{address} answers")


RAY = Check("ray", check_ray)
