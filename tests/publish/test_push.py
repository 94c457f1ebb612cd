"""Pushing an export: what goes up is what the manifest lists; every refusal is one line, before any call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from persianmind.common.errors import ExportError, PushError, UsageError
from persianmind.publish.manifest import write_export_manifest
from persianmind.publish.push import check_push, push
from tests.publish.fake_hub import FakeHub
from tests.support.log import logged

NAMES = ("config.json", "model.safetensors", "README.md", "odd [1] name.json")


def add_manifest(folder: Path, kind: str = "hf") -> Path:
    facts: dict[str, Any] = {
        "kind": kind, "recipe": "tiny", "step": 1, "stage": None, "adapter_scale": 1.0,
        "base_fingerprint": "b", "tokenizer_fingerprint": "t", "check": None,
    }  # fmt: skip
    write_export_manifest(folder, **facts)
    return folder


def push_to(hub: FakeHub, folder: Path, *, private: bool = True) -> str:
    return push(folder, "ana/llama-fa", private=private, api=cast(HfApi, hub))


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"content of {name}")
    return add_manifest(folder)


def test_the_whole_folder_goes_up_private(export: Path) -> None:
    hub = FakeHub()
    assert push_to(hub, export) == "https://hub.test/ana/llama-fa"
    assert hub.private and hub.calls == ["create_repo", "repo_info", "upload_folder"]
    assert hub.files == {path.name: path.read_bytes() for path in export.iterdir()}
    assert set(hub.files) == {*NAMES, "manifest.json"}


def test_public_where_it_is_asked_for(export: Path) -> None:
    hub = FakeHub()
    push_to(hub, export, private=False)
    assert hub.private is False


def test_a_public_repository_that_exists_is_not_filled_by_mistake(export: Path) -> None:
    hub = FakeHub(private=False)
    with pytest.raises(PushError, match="everybody can see it; give --public"):
        push_to(hub, export)
    assert hub.files == {}
    push_to(hub, export, private=False)
    assert set(hub.files) == {*NAMES, "manifest.json"}


def test_a_private_repository_stays_so_and_it_is_said(export: Path) -> None:
    hub = FakeHub(private=True)
    with logged() as lines:
        push_to(hub, export, private=False)
    assert hub.private and len(lines) == 1 and "stays private" in lines[0]


def test_old_weights_go_and_other_files_of_the_repository_stay(export: Path) -> None:
    """transformers would load an old model.safetensors before the new shards."""
    (export / "model.safetensors").unlink()
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name in shards:
        (export / name).write_text(name)
    add_manifest(export)
    old = ["model.safetensors", "model-00003-of-00003.safetensors", "model.safetensors.index.json"]
    kept = ["model-q8_0.gguf", "adapter_model.safetensors", "images/model.safetensors", "LICENSE"]
    hub = FakeHub(private=True, files=dict.fromkeys(old + kept, b"old"))
    push_to(hub, export)
    assert set(hub.files) == {*NAMES, "manifest.json", *shards, *kept} - {"model.safetensors"}


@pytest.mark.parametrize("kind", ["gguf", "adapter"])
def test_another_format_leaves_merged_weights_alone(export: Path, kind: str) -> None:
    (export / "model.safetensors").unlink()
    add_manifest(export, kind)
    hub = FakeHub(private=True, files={"model.safetensors": b"merged"})
    push_to(hub, export)
    assert hub.files["model.safetensors"] == b"merged"


def changed(folder: Path) -> None:
    (folder / "config.json").write_text("content of config.jsoN")


def foreign(folder: Path) -> None:
    (folder / "notes.txt").write_text("private")


def link_out(folder: Path) -> None:
    (folder.parent / "secret").write_text("content of config.json")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder.parent / "secret")


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def no_card(folder: Path) -> None:
    (folder / "README.md").unlink()
    add_manifest(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (changed, "config.json is damaged"),
        (foreign, "notes.txt is not in the manifest"),
        (link_out, "symbolic link"),
        (no_manifest, "no export of ours"),
        (no_card, "no model card"),
    ],
)
def test_what_is_no_whole_export_is_refused_before_any_call(
    export: Path, harm: Callable[[Path], None], message: str
) -> None:
    harm(export)
    hub = FakeHub()
    with pytest.raises(ExportError, match=message):
        push_to(hub, export)
    assert hub.calls == []


@pytest.mark.parametrize("name", ["llama-fa", "/tmp/x", "a/b/c", "ana/llama fa", "ana/../x", ""])
def test_a_name_that_is_none_is_refused_before_any_call(export: Path, name: str) -> None:
    hub = FakeHub()
    with pytest.raises(UsageError, match="give owner/name"):
        push(export, name, api=cast(HfApi, hub))
    assert hub.calls == []


def test_without_a_login_it_says_how(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(PushError, match="run `hf auth login`"):
        push(export, "ana/llama-fa")
    with pytest.raises(PushError, match="run `hf auth login`"):
        check_push("ana/llama-fa")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_test")
    check_push("ana/llama-fa")
    with pytest.raises(UsageError, match="give owner/name"):
        check_push("llama-fa")


def test_offline_is_one_line(export: Path) -> None:
    """The real library, which the tests keep offline."""
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set"):
        push(export, "ana/llama-fa", api=HfApi(endpoint="http://127.0.0.1:9", token="hf_test"))


class Answer(BaseHTTPRequestHandler):
    """Refuses everything with the server's `status`."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.do_GET()

    def do_GET(self) -> None:
        body = b'{"error": "the server\'s\\n own words"}'
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """On loopback, with the library online for it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()
    huggingface_hub.close_session()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "does not accept this login; run `hf auth login --force`"),
        (403, "may not write to ana/llama-fa .*use a token with the right to write"),
        (400, "the Hub refused ana/llama-fa: the server's own words; the same command goes on"),
        (507, "the Hub refused ana/llama-fa: the server's own words; the same command goes on"),
    ],
)
def test_what_the_hub_answers_is_one_line(
    export: Path, server: ThreadingHTTPServer, status: int, message: str
) -> None:
    """The real library against a server that refuses."""
    server.status = status  # type: ignore[attr-defined]
    api = HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_test")
    with pytest.raises(PushError, match=message) as caught:
        push(export, "ana/llama-fa", api=api)
    assert "\n" not in str(caught.value) and "hf_test" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_line(export: Path, server: ThreadingHTTPServer) -> None:
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(PushError, match=r"the way to the Hub failed .*refused.*goes on where it stopped"):
        push(export, "ana/llama-fa", api=HfApi(endpoint=f"http://127.0.0.1:{port}", token="hf_test"))


def test_a_card_that_the_hub_refuses_is_named(export: Path) -> None:
    class Strict(FakeHub):
        def upload_folder(self, *args: Any, **kwargs: Any) -> str:
            raise ValueError("Invalid metadata in README.md.\n- license must be a string")

    with pytest.raises(PushError, match=r"README.md: Invalid metadata in README.md. - license must be"):
        push_to(Strict(), export)
