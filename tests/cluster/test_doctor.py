"""Doctor's look at a Ray cluster, against dashboards on loopback that answer as Ray's does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from persianmind.checks.base import Level
from persianmind.cluster import doctor
from persianmind.cluster.doctor import dashboard_finding, ray_findings
from persianmind.cluster.security import read_token
from tests.support.launch import free_port


@contextmanager
def dashboard(*, token: str | None = None, ray: str | None = None) -> Iterator[str]:
    """As ray.dashboard answers: 401 without a token, 403 with a wrong one, else its version."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            status = 200 if token is None or given == f"Bearer {token}" else 401 if given is None else 403
            body = json.dumps({"version": "4", "ray_version": ray or version("ray")}).encode()
            self.send_response(status if self.path == "/api/version" else 404)
            self.end_headers()
            self.wfile.write(body if status == 200 else b"")

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_no_cluster_is_no_fault() -> None:
    (found,) = ray_findings({})
    assert found.level is Level.OK and "no cluster is named" in found.detail
    (found,) = ray_findings({"RAY_ADDRESS": "auto"})
    assert found.level is Level.OK


def test_a_dashboard_that_wants_a_token() -> None:
    with dashboard(token="right") as url:
        assert dashboard_finding(url, "right").level is Level.OK
        wrong, missing = dashboard_finding(url, "wrong"), dashboard_finding(url, None)
    assert wrong.level is Level.FAIL and "refuses the token" in wrong.detail
    assert missing.level is Level.FAIL and "RAY_AUTH_TOKEN_PATH" in missing.detail


def test_an_open_dashboard_is_refused_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    with dashboard() as url:
        found = dashboard_finding(url, None)
        assert found.level is Level.OK and "without a token, on loopback" in found.detail
        monkeypatch.setattr(doctor, "is_loopback", lambda host: False)
        beyond = dashboard_finding(url, "any")
    assert beyond.level is Level.FAIL and "anyone on that network can run code" in beyond.detail


def test_another_ray_and_another_server() -> None:
    with dashboard(ray="2.9.0") as url:
        found = dashboard_finding(url, None)
    assert found.level is Level.FAIL and "runs Ray 2.9.0" in found.detail
    with dashboard() as url:
        assert "is that a Ray dashboard" in dashboard_finding(f"{url}/other", None).detail


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
