"""No path of a checkpoint leads outside it, no file of it is read that is not the one hashed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from persianmind.checkpoint.manifest import StoredCheckpoint, read_manifest
from persianmind.checkpoint.reading import load_json, load_tensors, open_verified
from persianmind.common.errors import CheckpointError
from tests.checkpoint.helpers import (
    Trap,
    flip_bit,
    forge_manifest,
    make_store,
    newest,
    newest_and_log,
    two_checkpoints,
)

TENSORS, FACTS = "rng-rank-0.safetensors", "facts.json"
READERS: dict[str, Callable[[StoredCheckpoint, str], Any]] = {TENSORS: load_tensors, FACTS: load_json}


@pytest.fixture
def saved(tmp_path: Path) -> StoredCheckpoint:
    """A checkpoint with one file of each kind that is read here."""

    def write(folder: Path) -> None:
        save_file({"cpu": torch.arange(5)}, str(folder / TENSORS))
        (folder / FACTS).write_text('{"a": [1, 2]}')

    make_store(tmp_path / "store").save(1, {}, write)
    return newest(tmp_path / "store")


def test_what_is_listed_is_read(saved: StoredCheckpoint) -> None:
    assert torch.equal(load_tensors(saved, TENSORS)["cpu"], torch.arange(5))
    assert load_json(saved, FACTS) == {"a": [1, 2]}
    with open_verified(saved, FACTS) as handle:
        assert handle.read() == b'{"a": [1, 2]}'


@pytest.mark.parametrize("name", READERS)
def test_a_changed_bit_is_noticed_at_the_reading(saved: StoredCheckpoint, name: str) -> None:
    for bit in range(0, saved.file(name).stat().st_size * 8, 11):
        flip_bit(saved.file(name), bit)
        with pytest.raises(CheckpointError, match="its bytes changed since they were verified"):
            READERS[name](saved, name)
        flip_bit(saved.file(name), bit)
    assert READERS[name](saved, name) is not None


@pytest.mark.parametrize("name", READERS)
def test_a_link_or_a_foreign_file_is_refused(saved: StoredCheckpoint, tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="lists no file"):
        READERS[name](saved, "other")
    path = saved.path / name
    path.rename(tmp_path / "same-bytes")
    path.symlink_to(tmp_path / "same-bytes")
    with pytest.raises(CheckpointError, match="symbolic link"):
        READERS[name](saved, name)


@pytest.mark.parametrize("name", READERS)
def test_a_pickle_in_their_place_is_no_more_than_bytes(
    saved: StoredCheckpoint, tmp_path: Path, name: str
) -> None:
    raw = pickle.dumps(Trap(tmp_path / "sprung"))
    (saved.path / name).write_bytes(raw)
    with pytest.raises(CheckpointError, match="was not loaded"):
        READERS[name](forge_manifest(saved.path), name)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(raw)  # noqa: S301 (control: unpickled, it does something)
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../../outside.pt",
        "/etc/hostname",
        "deepspeed/../../x",
        "./a",
        "a//b",
        "a\\..\\b",
        "manifest.json",
        "",
    ],
)
def test_manifest_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    two_checkpoints(tmp_path)
    forge_manifest(tmp_path / "step-20", (name,))
    with pytest.raises(CheckpointError, match=r"lists the path|not inside the folder"):
        read_manifest(tmp_path / "step-20")
    found, lines = newest_and_log(tmp_path)
    assert found is not None and found.step == 10 and "step-20" in lines[0]


@pytest.mark.parametrize("target", ["../../x", "/etc", "step-20/../../x", "", 7, None])
def test_pointer_is_never_followed(tmp_path: Path, target: object) -> None:
    two_checkpoints(tmp_path)
    (tmp_path / "latest.json").write_text(json.dumps({"folder": target}))
    assert newest(tmp_path).step == 20


def test_linked_checkpoint_folder_is_refused(tmp_path: Path) -> None:
    two_checkpoints(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "step-20").symlink_to(tmp_path / "a" / "step-20")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        make_store(tmp_path / "b").newest_good()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b"null",
        b"[]",
        b'{"checksum": 1}',
        b"\xff\xfe",
        b'{"format": NaN, "checksum": ""}',
        b"9" * 10_000,
    ],
)
def test_hostile_manifest_is_a_named_error(tmp_path: Path, content: bytes) -> None:
    two_checkpoints(tmp_path)
    (tmp_path / "step-20" / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-20/manifest.json is damaged"):
        read_manifest(tmp_path / "step-20")
