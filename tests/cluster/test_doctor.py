"""Doctor's look at a Ray cluster, against dashboards on loopback that answer as Ray's does."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.checks.base import Level
from persianmind.cluster import security
from persianmind.cluster.doctor import dashboard_finding, ray_findings
from persianmind.cluster.security import read_token
from tests.cluster.dashboards import dashboard
from tests.support.launch import free_port


def test_no_cluster_is_no_fault() -> None:
    (found,) = ray_findings({})
    assert found.level is Level.OK and "no cluster is named" in found.detail
    (found,) = ray_findings({"RAY_ADDRESS": "auto"})
    assert found.level is Level.OK


def test_a_dashboard_that_wants_a_token() -> None:
    with dashboard(token="right") as fake:
        assert dashboard_finding(fake.url, "right").level is Level.OK
        wrong, missing = dashboard_finding(fake.url, "wrong"), dashboard_finding(fake.url, None)
    assert wrong.level is Level.FAIL and "refuses the token" in wrong.detail
    assert missing.level is Level.FAIL and "RAY_AUTH_TOKEN_PATH" in missing.detail


def test_an_open_dashboard_is_refused_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    with dashboard() as fake:
        found = dashboard_finding(fake.url, None)
        assert found.level is Level.OK and "without a token, on loopback" in found.detail
        monkeypatch.setattr(security, "is_loopback", lambda host: False)
        beyond = dashboard_finding(fake.url, "any")
    assert beyond.level is Level.FAIL and "anyone on that network can run code" in beyond.detail
    assert set(fake.tokens) == {None}


def test_the_token_stays_here_where_its_way_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "is_loopback", lambda host: False)
    with dashboard(token="right") as fake:
        found = dashboard_finding(fake.url, "right")
        assert found.level is Level.WARN and "unencrypted" in found.detail
        assert set(fake.tokens) == {None}
        monkeypatch.setattr(security, "is_loopback", lambda host: True)
        assert dashboard_finding(fake.url, "right").level is Level.OK
        assert fake.tokens[-1] == "Bearer right"


def test_another_ray_and_another_server() -> None:
    with dashboard(ray="2.9.0") as fake:
        found = dashboard_finding(fake.url, None)
    assert found.level is Level.FAIL and "runs Ray 2.9.0" in found.detail
    with dashboard() as fake:
        assert "is that a Ray dashboard" in dashboard_finding(f"{fake.url}/other", None).detail
    assert "wants http://" in dashboard_finding("ray://head:10001", None).detail


def test_nobody_answers() -> None:
    port = free_port()
    (found,) = ray_findings({"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"})
    assert found.level is Level.FAIL and "is the head running" in found.detail
    (head,) = ray_findings({"RAY_ADDRESS": f"127.0.0.1:{port}"})
    assert head.level is Level.FAIL and "start the head" in head.detail
    (nonsense,) = ray_findings({"RAY_ADDRESS": "head-of-my-cluster"})
    assert nonsense.level is Level.FAIL


def test_the_token_is_rays_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    (tmp_path / "token").write_text("from the file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert read_token() is None  # the mode is not on
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert read_token() == "from the file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from the environment")
    assert read_token() == "from the environment"
