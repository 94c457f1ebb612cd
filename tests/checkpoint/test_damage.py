"""Whatever changes in a checkpoint is found, named, and the older whole one is used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from persianmind.checkpoint import verify
from persianmind.checkpoint.manifest import MANIFEST, read_manifest
from persianmind.common.errors import CheckpointError
from tests.checkpoint.helpers import (
    flip_bit,
    flips_found,
    make_store,
    newest_and_log,
    on_ranks,
    save,
    two_checkpoints,
)
from tests.support.log import logged

FILES = ["deepspeed/rank_0.pt", "deepspeed/rank_1.pt", "rng-rank-0.json", MANIFEST]


def resumed_step(root: Path) -> tuple[int, str]:
    """The step a resume would use, and everything it reported."""
    found, lines = newest_and_log(root)
    assert found is not None
    return found.step, "\n".join(lines)


def assert_older_used(root: Path, named: str) -> str:
    step, messages = resumed_step(root)
    assert step == 10, messages
    assert named in messages and "step-20" in messages and "resuming from the older checkpoint" in messages
    return messages


def test_undamaged_is_used_silently(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    assert resumed_step(tmp_path) == (20, "")


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", FILES)
def test_cut_file_is_named(tmp_path: Path, name: str, ratio: float) -> None:
    two_checkpoints(tmp_path)
    path = tmp_path / "step-20" / name
    os.truncate(path, int(path.stat().st_size * ratio))
    assert_older_used(tmp_path, name)


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 0.99])
def test_cut_pointer_changes_nothing(tmp_path: Path, ratio: float) -> None:
    two_checkpoints(tmp_path)
    path = tmp_path / "latest.json"
    os.truncate(path, int(path.stat().st_size * ratio))
    assert resumed_step(tmp_path) == (20, "")


@pytest.mark.integration
def test_every_byte_of_a_manifest_counts(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    path = tmp_path / "step-20" / MANIFEST
    missed = []
    for bit in range(0, path.stat().st_size * 8, 7):  # every byte, each with another of its bits
        flip_bit(path, bit)
        try:
            read_manifest(path.parent)
            missed.append(bit)
        except CheckpointError:
            pass
        flip_bit(path, bit)
    assert missed == []


def test_control_without_hashing_flips_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_checkpoints(tmp_path)
    assert flips_found(tmp_path / "step-20", 60, seed=7) == 60
    monkeypatch.setattr(verify, "content_damage", lambda *_: [])
    assert flips_found(tmp_path / "step-20", 60, seed=7) < 60


def _swap(folder: Path) -> None:
    one, other = folder / FILES[0], folder / FILES[1]  # of equal length: only hashes tell
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def _replace_by_link(folder: Path) -> None:
    target = folder.parent / "elsewhere.pt"
    (folder / FILES[0]).rename(target)
    (folder / FILES[0]).symlink_to(target)


def _link_folder(folder: Path) -> None:
    target = folder.parent / "elsewhere"
    (folder / "deepspeed").rename(target)
    (folder / "deepspeed").symlink_to(target)


STRUCTURE: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"missing-{i}": (lambda f, n=n: (f / n).unlink(), n) for i, n in enumerate(FILES)},
    **{
        f"foreign-{i}": (lambda f, n=n: shutil.copyfile(f.parent / "step-10" / n, f / n), n)
        for i, n in enumerate(FILES[:3])
    },
    "foreign-manifest": (lambda f: shutil.copyfile(f.parent / "step-10" / MANIFEST, f / MANIFEST), "step-20"),
    "swapped": (_swap, FILES[0]),
    "swapped-names": (lambda f: (f / FILES[0]).replace(f / FILES[1]), FILES[0]),
    "renamed": (lambda f: (f / FILES[0]).rename(f / "deepspeed/rank_7.pt"), FILES[0]),
    "extra-file": (lambda f: (f / "extra.pt").write_bytes(b"x"), "extra.pt"),
    "extra-hidden": (lambda f: (f / ".hidden").write_bytes(b""), ".hidden"),
    "extra-below": (lambda f: (f / "deepspeed" / "x.pt").write_bytes(b"x"), "deepspeed/x.pt"),
    "extra-link": (lambda f: (f / "link").symlink_to(f / FILES[0]), "link"),
    "dangling-link": (lambda f: (f / "link").symlink_to(f / "nowhere"), "link"),
    "fifo": (lambda f: os.mkfifo(f / "pipe"), "pipe"),
    "file-is-link": (_replace_by_link, FILES[0]),
    "folder-is-link": (_link_folder, "deepspeed"),
    "file-is-folder": (lambda f: ((f / FILES[2]).unlink(), (f / FILES[2]).mkdir()), FILES[2]),
    "longer": (lambda f: (f / FILES[0]).write_bytes((f / FILES[0]).read_bytes() + b"\0"), FILES[0]),
}


@pytest.mark.parametrize("case", STRUCTURE)
def test_missing_extra_swapped_and_foreign_files_are_named(tmp_path: Path, case: str) -> None:
    two_checkpoints(tmp_path)
    damage, named = STRUCTURE[case]
    damage(tmp_path / "step-20")
    assert_older_used(tmp_path, named)


def test_control_without_the_layout_check_extra_files_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_checkpoints(tmp_path)
    (tmp_path / "step-20" / "extra.pt").write_bytes(b"x")
    monkeypatch.setattr(verify, "layout_damage", lambda *_: [])
    assert resumed_step(tmp_path) == (20, "")


def test_ranks_share_the_hashing_and_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_checkpoints(tmp_path)
    read: list[str] = []
    real = verify.hash_file
    monkeypatch.setattr(verify, "hash_file", lambda path: (read.append(path.name), real(path))[1])
    assert on_ranks(2, lambda group: verify.examine_checkpoint(tmp_path / "step-20", group)[1]) == [[], []]
    assert sorted(read) == ["rank_0.pt", "rank_1.pt", "rng-rank-0.json"]  # each once, not once per rank
    flip_bit(tmp_path / "step-20" / FILES[1], 77)
    found = on_ranks(3, lambda group: make_store(tmp_path).newest_good(group))
    assert [one.step for one in found] == [10, 10, 10]


def test_no_good_one_is_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    assert newest_and_log(tmp_path / "fresh") == (None, [])
    two_checkpoints(tmp_path)
    for step in (10, 20):
        flip_bit(tmp_path / f"step-{step}" / FILES[0], 5)
    with logged() as lines:
        outcomes = on_ranks(2, lambda group: make_store(tmp_path).newest_good(group))
    assert all(
        isinstance(one, CheckpointError) and "none of the 2 checkpoints" in str(one) for one in outcomes
    )
    assert len(lines) == 2  # two bad ones, named by rank 0 alone


def test_damaged_manifest_of_an_older_one_is_not_in_the_way(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    (tmp_path / "step-10" / MANIFEST).write_bytes(b"{}")
    assert resumed_step(tmp_path) == (20, "")


def test_bad_ones_do_not_count_as_kept(tmp_path: Path) -> None:
    """Two are kept. With the newer one damaged, the next save must not push out the good one."""
    two_checkpoints(tmp_path)
    flip_bit(tmp_path / "step-20" / FILES[0], 5)
    store = make_store(tmp_path, keep_last=2)
    found = store.newest_good()
    assert found is not None and found.step == 10
    save(store, 15)
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-10", "step-15", "step-20"}
    save(store, 20)
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-15", "step-20.2"}
