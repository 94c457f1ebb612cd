"""Servers on loopback that answer as Ray's dashboard does, and keep what they were asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from threading import Thread
from typing import Any

PATHS = {"/api/version", "/api/jobs/"}


@dataclass
class FakeDashboard:
    """token: what it asks for, None nothing. status: what it answers to requests without a token instead of
    401. redirect: where it sends every request that has the token."""

    token: str | None = None
    ray: str = field(default_factory=lambda: version("ray"))
    status: int = 401
    redirect: str | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def answer(self, path: str, authorization: str | None) -> tuple[int, Any]:
        """(HTTP status, JSON)."""
        self.asked.append(path)
        self.tokens.append(authorization)
        if self.token is not None and authorization != f"Bearer {self.token}":
            return (self.status if authorization is None else 403), None
        if self.redirect is not None:
            return 307, None
        version_of = {"version": "4", "ray_version": self.ray}
        return (200, version_of if path == "/api/version" else []) if path in PATHS else (404, None)


@contextmanager
def dashboard(**options: Any) -> Iterator[FakeDashboard]:
    """A `FakeDashboard` for the block."""
    fake = FakeDashboard(**options)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            status, found = fake.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            if status in (302, 307):
                self.send_header("Location", f"{fake.redirect}{self.path}")
            body = b"" if found is None else json.dumps(found).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
