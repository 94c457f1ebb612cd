"""Doctor's check of the Ray cluster that the environment names: it answers, it asks for a token, it fits."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from urllib.parse import urlsplit

from persianmind.checks.base import Check, CheckContext, CheckResult
from persianmind.cluster.security import (
    JOBS_PATH,
    REFUSALS,
    TIMEOUT_S,
    TUNNEL,
    VERSION_PATH,
    ask_dashboard,
    dashboard_url,
    on_loopback,
    read_token,
    token_crosses_network_unencrypted,
)
from persianmind.common.errors import ClusterError

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


def dashboard_finding(address: str, token: str | None) -> CheckResult:
    """Whether the dashboard answers, to whom, and whether its Ray is this machine's.

    Args:
        address: http://HOST:PORT.
        token: what this process would present, None without one; sent only where nobody can read it.
    """
    try:
        url = dashboard_url(address)
    except ClusterError as error:
        return CheckResult.fail("ray", f"{DASHBOARD}: {error}")
    without, _ = ask_dashboard(url, JOBS_PATH, None)
    if isinstance(without, str):
        return CheckResult.fail("ray", f"{url} does not answer ({without}); is the head running? {TUNNEL}")
    asks = without in REFUSALS
    if not asks and not on_loopback(url):
        return CheckResult.fail(
            "ray",
            f"{url} answers anybody without a token, so anyone on that network can run code on the cluster; "
            f"start every node with RAY_AUTH_MODE=token (docs/cluster.md), or: {TUNNEL}",
        )
    if token is not None and token_crosses_network_unencrypted(url):
        return CheckResult.warn(
            "ray",
            f"{url} asks for a token; yours was not tried, it would cross the network unencrypted: {TUNNEL}",
        )
    return _version_finding(url, token, "with a token" if asks else "without a token, on loopback")


def _version_finding(url: str, token: str | None, how: str) -> CheckResult:
    """What the dashboard says to our own token, or to none."""
    status, found = ask_dashboard(url, VERSION_PATH, token)
    if status in REFUSALS:
        what = "wants a token and none is set" if token is None else "refuses the token"
        return CheckResult.fail(
            "ray",
            f"{url} {what}; copy the head's token file here and set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH",
        )
    theirs, ours = found.get("ray_version"), version("ray")
    if status != 200 or theirs is None:
        return CheckResult.fail("ray", f"{url} answers {status}; is that a Ray dashboard?")
    if theirs != ours:
        return CheckResult.fail(
            "ray", f"{url} runs Ray {theirs}, this machine has {ours}: install the same on every machine"
        )
    return CheckResult.ok("ray", f"{url} answers {how}, Ray {theirs}")


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
