"""A Hugging Face hub on loopback: the HTTP that huggingface_hub speaks, with access control and faults."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_for_tests"


@dataclass
class HttpHub:
    """name -> file -> content. gated: repositories that want TOKEN. cut: file -> bytes after which its next
    download breaks off, once. ranges: the Range headers that came, by file."""

    repositories: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, list[str | None]] = field(default_factory=dict)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: HttpHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            return self._send(200, b"hub")
        if found := re.fullmatch(r"/api/(?:models|datasets)/([\w.-]+/[\w.-]+)(/.*)?", path):
            return self._api(found[1], found[2] or "")
        if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/[\w.-]+/(.+)", path):
            return self._file(found[1], found[2])
        return self._send(404, b"")

    def _api(self, name: str, rest: str) -> None:
        if name not in self.hub.repositories:
            return self._refuse(404, "RepoNotFound")
        if rest == "/auth-check":
            return self._send(200, b"") if self._may_read(name) else self._refuse(403, "GatedRepo")
        files = self.hub.repositories[name]
        if rest.startswith("/tree/"):
            return self._json([{"type": "file", "path": file, **_git(files[file])} for file in files])
        siblings = [{"rfilename": file, **_git(files[file])} for file in files]
        return self._json({"id": name, "sha": SHA, "gated": name in self.hub.gated, "siblings": siblings})

    def _file(self, name: str, file: str) -> None:
        content = self.hub.repositories.get(name, {}).get(file)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        if not self._may_read(name):
            return self._refuse(403, "GatedRepo")
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            return self._send(200, content, headers)
        wanted = self.headers.get("Range")
        self.hub.ranges.setdefault(file, []).append(wanted)
        status, start = 200, 0
        if wanted is not None:
            status, start = 206, int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(status, content[start:], headers, self.hub.cut.pop(file, None))

    def _may_read(self, name: str) -> bool:
        return name not in self.hub.gated or self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut is None else content[:cut])
        self.close_connection = cut is not None


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git(content: bytes) -> dict[str, Any]:
    """As the hub lists a file in large-file storage."""
    lfs = {"sha256": _etag(content), "oid": _etag(content), "size": len(content), "pointerSize": 134}
    return {"size": len(content), "blobId": "0" * 40, "oid": "0" * 40, "lfs": lfs}


@contextmanager
def http_hub(
    monkeypatch: pytest.MonkeyPatch, cache: Path, repositories: dict[str, dict[str, bytes]]
) -> Iterator[HttpHub]:
    """The hub, while the block runs; huggingface_hub in this process uses it, with an empty cache."""
    from huggingface_hub import constants

    hub = HttpHub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
