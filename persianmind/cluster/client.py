"""Ray's client of the Jobs API, held to the address that was checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.job_submission import JobSubmissionClient

from persianmind.cluster.security import check_dashboard, check_token_way, dashboard_url, on_loopback
from persianmind.common.errors import ClusterError

OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray prefers these to the address it is given
NO_PROXY = dict.fromkeys(("http", "https", "all"))


class CheckedClient(JobSubmissionClient):  # type: ignore[misc]
    """Sends nothing anywhere else: no redirect is followed, and on loopback no proxy is used."""

    def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
        if on_loopback(self.get_address()):
            more["proxies"] = NO_PROXY
        return super()._do_request(method, endpoint, allow_redirects=False, **more)


def connect(address: str, *, unencrypted_allowed: bool = False) -> CheckedClient:
    """A client of the dashboard at this address.

    Args:
        unencrypted_allowed: whether the token may be sent over plain http beyond loopback.

    Raises:
        ClusterError: nobody answers there, the token is wrong or would be readable on its way, or the
            dashboard is open to a network.
    """
    from ray.exceptions import AuthenticationError

    url = dashboard_url(address)
    check_token_way(url, unencrypted_allowed=unencrypted_allowed)
    check_dashboard(url)
    try:
        with _address_as_given():
            return CheckedClient(url)
    except AuthenticationError as error:
        raise ClusterError(
            f"{url} refuses the token: {short_text(error)}; copy the head's token file here and set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        ) from None
    # requests' errors are OSErrors; ValueError and KeyError: the answer is not a Ray dashboard's.
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ClusterError(
            f"no Ray dashboard answers at {url} ({short_text(error)}); is the head running, and "
            "the tunnel open?"
        ) from None


@contextmanager
def _address_as_given() -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def short_text(error: object) -> str:
    """What somebody else's error says, on one line."""
    return " ".join(str(error).split())[:200]
