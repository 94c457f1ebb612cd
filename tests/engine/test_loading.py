"""Nothing in a DeepSpeed file of a checkpoint runs code, even with a forged manifest."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")

from persianmind.checkpoint.manifest import StoredCheckpoint, read_manifest
from persianmind.common.errors import CheckpointError
from persianmind.engine.deepspeed import loading
from persianmind.engine.deepspeed.loading import VerifiedReader, load_verified
from tests.checkpoint.helpers import Trap, flips_found, forge_manifest, make_store, newest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.integration

SLOTS = [
    "deepspeed/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "deepspeed/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "deepspeed/mp_rank_00_model_states.pt",
]


@pytest.fixture
def run(zero_runs: Path, tmp_path: Path) -> Path:
    root = tmp_path / "checkpoints"
    shutil.copytree(zero_runs / "bf16" / "a2", root)
    return root


def good(root: Path) -> StoredCheckpoint:
    return newest(root)


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("slot", SLOTS)
def test_malicious_pickle_in_each_slot_never_runs(run: Path, tmp_path: Path, slot: str, kind: str) -> None:
    sprung = tmp_path / "sprung"
    before = good(run)
    path = run / "step-3" / slot
    if kind == "bare":
        path.write_bytes(pickle.dumps(Trap(sprung)))
    else:
        torch.save({"module": Trap(sprung)}, path, _use_new_zipfile_serialization=kind == "zip")
    # First wall: the bytes are not those of the manifest.
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        make_store(run).newest_good()
    with pytest.raises(CheckpointError, match="its bytes changed since they were verified"):
        load_verified(before, slot)
    # Second wall: a forged manifest lists them, and still nothing but data is unpickled.
    forge_manifest(run / "step-3")
    with pytest.raises(CheckpointError, match="was not loaded"):
        load_verified(good(run), slot)
    assert not sprung.exists()
    # Control: without the second wall the code runs.
    with path.open("rb") as handle:
        if kind == "bare":
            pickle.load(handle)  # noqa: S301
        else:
            torch.load(handle, weights_only=False)
    assert sprung.exists()


@pytest.mark.parametrize("slot", SLOTS)
def test_real_files_need_no_more_than_the_allowed_classes(run: Path, slot: str) -> None:
    assert load_verified(good(run), slot)


def test_control_the_allowed_classes_are_needed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "allowed_classes", list)
    with pytest.raises(CheckpointError, match="Unsupported global"):
        load_verified(good(run), SLOTS[0])


def test_deepspeed_is_given_only_listed_files(run: Path, tmp_path: Path) -> None:
    found = good(run)
    reader = VerifiedReader(found, behind=None)
    assert reader.load(str(found.path / SLOTS[2]))["global_steps"] == 3
    planted = found.path / "deepspeed" / "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt"
    torch.save({}, planted)
    with pytest.raises(CheckpointError, match="lists no file"):
        reader.load(str(planted))
    torch.save({}, tmp_path / "outside.pt")
    for path in (tmp_path / "outside.pt", found.path / ".." / ".." / "outside.pt"):
        with pytest.raises(CheckpointError, match="outside the checkpoint"):
            reader.load(str(path))


def test_link_put_in_after_verification_is_refused(run: Path, tmp_path: Path) -> None:
    found = good(run)
    path = found.path / SLOTS[2]
    path.rename(tmp_path / "same-bytes.pt")
    path.symlink_to(tmp_path / "same-bytes.pt")
    with pytest.raises(CheckpointError, match="symbolic link"):
        load_verified(found, SLOTS[2])


def test_200_bit_flips_in_a_real_checkpoint_are_all_found(zero_runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "step-3"
    shutil.copytree(zero_runs / "bf16" / "a2" / "step-3", folder)
    assert flips_found(folder, 200, seed=7) == 200


def test_files_of_other_kinds_are_not_loaded(run: Path) -> None:
    path = run / "step-3" / SLOTS[2]
    path.rename(path.with_suffix(".pkl"))
    found = good_after_rename(run)
    with pytest.raises(CheckpointError, match=r"loads \.pt files only"):
        load_verified(found, SLOTS[2].replace(".pt", ".pkl"))


def good_after_rename(run: Path) -> StoredCheckpoint:
    from persianmind.checkpoint.manifest import FileEntry, write_manifest
    from persianmind.checkpoint.verify import list_files
    from persianmind.common.checksum import hash_file

    folder = run / "step-3"
    names = [name for name in list_files(folder) if name != "manifest.json"]
    files = {name: FileEntry((folder / name).stat().st_size, hash_file(folder / name)) for name in names}
    write_manifest(folder, StoredCheckpoint(**{**vars(read_manifest(folder)), "files": files}))
    return good(run)
