"""Which dashboards are used, and where the token goes; servers on loopback stand for others beyond it."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest

from persianmind.cluster import client, security
from persianmind.cluster.client import connect
from persianmind.cluster.security import check_dashboard, dashboard_url, is_loopback, token_is_set
from persianmind.common.errors import ClusterError
from tests.cluster.dashboards import FakeDashboard, dashboard

TOKEN = "planted-token-4711"


@pytest.fixture
def with_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a laptop that holds the token. Ray itself reads it once a process: its client gets it by hand."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(
        "ray.dashboard.modules.dashboard_sdk.get_auth_headers_if_auth_enabled",
        lambda _: {"authorization": f"Bearer {TOKEN}"},
    )
    for name in client.OVERRIDES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "is_loopback", lambda host: False)


BEYOND = ("0.0.0.0", "192.168.1.10", "head", "localhost.example", "127.0.0.1.example", "")


def test_what_counts_as_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"))
    assert [host for host in BEYOND if is_loopback(host)] == []


@pytest.mark.parametrize(
    "address",
    [
        "ray://head:10001",
        "auto://x",
        "http://",
        "http://u:p@head:8265",
        "http://head:99999999",
        "ftp://head",
        "http://127.0.0.1:8265\\@head",
        "http://head:0",
    ],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match="wants http://HOST:8265"):
        dashboard_url(address)


def test_an_address_has_one_form() -> None:
    assert dashboard_url("head:8265") == dashboard_url("http://head:8265/") == "http://head:8265"
    assert dashboard_url("https://head/ray/?x=1") == "https://head/ray"


@pytest.mark.usefixtures("with_token", "beyond_loopback")
@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_a_dashboard_that_asks_for_no_token_is_refused_whatever_this_process_has(status: int) -> None:
    """The hole that was: a token in our own environment was taken for one that the server asks for."""
    with dashboard(token=TOKEN, status=status) as fake:
        with pytest.raises(ClusterError, match=f"answers {status} to a request without a token"):
            connect(fake.url, unencrypted_allowed=True)
        assert fake.tokens == [None]  # one request, without the token


@pytest.mark.usefixtures("with_token", "beyond_loopback")
@pytest.mark.parametrize("status", [401, 403])
def test_a_dashboard_that_refuses_a_request_without_a_token_is_used(status: int) -> None:
    with dashboard(token=TOKEN, status=status) as fake:
        assert connect(fake.url, unencrypted_allowed=True).list_jobs() == []
        assert fake.asked[0] == "/api/jobs/" and fake.tokens[0] is None


@pytest.mark.usefixtures("with_token", "beyond_loopback")
def test_with_the_question_left_out_an_open_dashboard_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: it is the question alone that refuses."""
    monkeypatch.setattr(client, "check_dashboard", lambda url: None)
    with dashboard() as fake:
        connect(fake.url, unencrypted_allowed=True)
        assert f"Bearer {TOKEN}" in fake.tokens


@pytest.mark.usefixtures("with_token", "beyond_loopback")
def test_the_token_crosses_no_network_in_the_clear_without_consent() -> None:
    with dashboard(token=TOKEN) as fake:
        with pytest.raises(ClusterError, match=r"unencrypted.*--send-token-unencrypted"):
            connect(fake.url)
        assert fake.asked == []
    assert not security.token_crosses_network_unencrypted("https://head:8265")


@pytest.mark.usefixtures("with_token")
def test_loopback_stays_usable_and_an_open_one_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with dashboard(token=TOKEN) as fake:
        assert connect(fake.url).list_jobs() == []
    assert "every user of that machine" not in caplog.text
    with dashboard() as fake:
        connect(fake.url)
    assert "every user of that machine can run code" in caplog.text
    assert TOKEN not in caplog.text


def used_tokens(fake: FakeDashboard, other: FakeDashboard) -> tuple[bool, bool]:
    """Whether each of the two servers has seen the token."""
    bearer = f"Bearer {TOKEN}"
    return bearer in fake.tokens, bearer in other.tokens


@pytest.mark.usefixtures("with_token")
def test_a_redirect_does_not_carry_the_token() -> None:
    with dashboard() as other, dashboard(token=TOKEN, redirect=other.url) as fake:
        assert security.ask_dashboard(fake.url, "/api/version", TOKEN)[0] == 307
        with pytest.raises(ClusterError, match="no Ray dashboard answers"):
            connect(fake.url)
        assert used_tokens(fake, other) == (True, False) and other.asked == []


@pytest.mark.usefixtures("with_token")
def test_without_the_guard_urllib_carries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_NoRedirect", urllib.request.HTTPRedirectHandler)
    with dashboard() as other, dashboard(token=TOKEN, redirect=other.url) as fake:
        security.ask_dashboard(fake.url, "/api/version", TOKEN)
        assert used_tokens(fake, other) == (True, True)


@pytest.mark.usefixtures("with_token")
def test_a_redirected_log_stream_does_not_carry_the_token() -> None:
    with dashboard() as other, dashboard(token=TOKEN) as fake:
        found = connect(fake.url)
        fake.redirect = other.url

        async def tail() -> None:
            async for _ in found.tail_job_logs("x"):
                pass

        with pytest.raises(Exception, match="404"):
            asyncio.run(tail())
        assert other.asked and used_tokens(fake, other) == (True, False)


@pytest.mark.usefixtures("with_token")
@pytest.mark.parametrize("name", client.OVERRIDES)
def test_rays_own_variables_do_not_replace_the_address_that_was_checked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dashboard() as other, dashboard(token=TOKEN) as fake:
        monkeypatch.setenv(name, other.url)
        assert connect(fake.url).get_address() == fake.url
        assert other.asked == []
        # The control: Ray's client as it is goes to the other one.
        assert client.JobSubmissionClient(fake.url).get_address() == other.url


@pytest.mark.usefixtures("with_token")
def test_nothing_for_loopback_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with dashboard() as proxy, dashboard(token=TOKEN) as fake:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        connect(fake.url)
        assert proxy.asked == []
        monkeypatch.setattr(client, "NO_PROXY", {})
        with pytest.raises(RuntimeError, match="404"):  # the control: that proxy passes nothing on
            client.CheckedClient(fake.url)
        assert f"Bearer {TOKEN}" in proxy.tokens


@pytest.mark.usefixtures("beyond_loopback")
def test_nobody_answers_beyond_loopback() -> None:
    with dashboard() as fake:
        pass
    with pytest.raises(ClusterError, match=r"no Ray dashboard answers at .*is the head running"):
        check_dashboard(fake.url)


def test_a_token_counts_only_with_rays_mode_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    assert not token_is_set()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert token_is_set()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    assert not token_is_set()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    assert token_is_set()
