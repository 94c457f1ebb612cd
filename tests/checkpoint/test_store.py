"""The commit protocol without faults from outside: agreement over ranks, errors, space, retention."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persianmind.checkpoint import group as group_module
from persianmind.checkpoint import pointer
from persianmind.checkpoint import store as store_module
from persianmind.checkpoint.manifest import MANIFEST, read_manifest
from persianmind.checkpoint.pointer import read_pointer
from persianmind.checkpoint.store import CheckpointStore
from persianmind.checkpoint.verify import share_of
from persianmind.common.errors import CheckpointError, CheckpointWriteError
from tests.checkpoint import helpers
from tests.checkpoint.helpers import (
    contents,
    make_store,
    newest,
    on_ranks,
    save,
    two_checkpoints,
    write_contents,
)

NO_SPACE = OSError(28, "No space left on device")


def rank_writer(rank: int) -> Callable[[Path], None]:
    return lambda folder: (folder / f"rank-{rank}.bin").write_bytes(bytes([rank]) * 100) and None


def fail(*_: Any, **__: Any) -> Any:
    raise NO_SPACE


def test_three_ranks_commit_one_checkpoint(tmp_path: Path) -> None:
    def work(group: Any) -> Path:
        return make_store(tmp_path).save(5, {"cursor": 640, "stage": "fa"}, rank_writer(group.rank), group)

    assert on_ranks(3, work) == [tmp_path / "step-5"] * 3
    found = read_manifest(tmp_path / "step-5")
    assert (found.step, found.world_size, dict(found.metadata)) == (5, 3, {"cursor": 640, "stage": "fa"})
    assert sorted(found.files) == ["rank-0.bin", "rank-1.bin", "rank-2.bin"]
    assert found.file("rank-2.bin").read_bytes() == b"\2" * 100
    assert found.size_bytes == 300
    assert read_pointer(tmp_path) == "step-5"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step-5"]
    with pytest.raises(CheckpointError, match=r"lists no file 'rank-3.bin'"):
        found.file("rank-3.bin")


@pytest.mark.parametrize("failing_rank", [0, 1])
@pytest.mark.parametrize("place", ["write", "fsync_file", "hash_file"])
def test_error_on_one_rank_ends_the_save_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, failing_rank: int
) -> None:
    two_checkpoints(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def work(group: Any) -> Path:
        def write(folder: Path) -> None:
            rank_writer(group.rank)(folder)
            if place == "write" and group.rank == failing_rank:
                raise NO_SPACE

        return make_store(tmp_path).save(30, {}, write, group)

    if place != "write":
        real = getattr(store_module, place)

        def breaking(path: Path) -> Any:
            # Equal sizes: share_of gives rank r the file rank-r.bin.
            return fail() if path.name == f"rank-{failing_rank}.bin" else real(path)

        monkeypatch.setattr(store_module, place, breaking)
    outcomes = on_ranks(2, work)
    assert [type(one) for one in outcomes] == [CheckpointWriteError] * 2
    assert str(outcomes[0]) == str(outcomes[1])
    assert f"rank {failing_rank}: OSError: [Errno 28] No space left on device" in str(outcomes[0])
    assert "the checkpoint of step 30 was not saved (older ones are untouched)" in str(outcomes[0])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_control_without_agreement_a_rank_is_left_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard off: ranks exchange only results. Rank 0 never comes back by itself."""

    def alone(group: Any, action: Callable[[], Any], what: str, raises: type = CheckpointError) -> list[Any]:
        return list(group.all_gather(action()))

    monkeypatch.setattr(store_module, "together", alone)
    monkeypatch.setattr(helpers, "BARRIER_TIMEOUT_S", 0.5)
    write = {0: rank_writer(0), 1: fail}
    outcomes = on_ranks(2, lambda group: make_store(tmp_path).save(1, {}, write[group.rank], group))
    assert [type(one).__name__ for one in outcomes] == ["BrokenBarrierError", "OSError"]


@pytest.mark.parametrize("place", ["write_manifest", "fsync_folder", "Path.mkdir", "Path.rename"])
def test_error_while_committing_is_agreed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    two_checkpoints(tmp_path)
    with monkeypatch.context() as broken:
        target = Path if place.startswith("Path.") else store_module
        broken.setattr(target, place.removeprefix("Path."), fail)
        outcomes = on_ranks(
            2, lambda group: make_store(tmp_path).save(30, {}, rank_writer(group.rank), group)
        )
    assert [type(one) for one in outcomes] == [CheckpointWriteError] * 2
    assert not list(tmp_path.glob(".tmp-*"))
    assert newest(tmp_path).step == 20


def test_pointer_that_cannot_be_written_is_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pointer, "write_checked", fail)
    assert save(make_store(tmp_path), 1) == tmp_path / "step-1"
    assert "latest.json could not be written" in caplog.messages[0]
    assert newest(tmp_path).step == 1


def test_space_is_checked_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = two_checkpoints(tmp_path)
    wrote: list[Path] = []
    needed = read_manifest(tmp_path / "step-20").size_bytes + store_module.SPARE_BYTES
    usage = shutil.disk_usage(tmp_path)

    def write(folder: Path) -> None:
        wrote.append(folder)
        write_contents(30)(folder)

    def attempt(free_bytes: int, **options: Any) -> Path:
        monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage._replace(free=free_bytes))
        return store.save(30, {}, write, **options)

    with pytest.raises(CheckpointWriteError, match=r"GB free and a checkpoint takes .* free some"):
        attempt(needed - 1)
    with pytest.raises(CheckpointWriteError, match="free some space"):
        attempt(needed, estimate_bytes=needed)
    assert wrote == [] and not list(tmp_path.glob(".tmp-*"))
    assert attempt(needed) == tmp_path / "step-30"


def test_storage_that_nodes_do_not_share_is_named(tmp_path: Path) -> None:
    roots = [tmp_path / "node-0", tmp_path / "node-1"]
    (roots[1] / ".tmp-step-1").mkdir(parents=True)  # even with a leftover there
    outcomes = on_ranks(2, lambda group: make_store(roots[group.rank]).save(1, {}, rank_writer(0), group))
    assert [type(one) for one in outcomes] == [CheckpointWriteError] * 2
    assert "rank 1:" in str(outcomes[0]) and "storage that all nodes share" in str(outcomes[0])


@pytest.mark.parametrize("metadata", [{"loss": float("nan")}, {"path": Path("x")}, {"x": {1, 2}}])
def test_metadata_that_is_not_json_is_refused(tmp_path: Path, metadata: dict[str, Any]) -> None:
    with pytest.raises(CheckpointWriteError, match="step 1 was not saved"):
        make_store(tmp_path).save(1, metadata, write_contents(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", ["nothing", "link"])
def test_writer_that_leaves_nothing_or_a_link_is_refused(tmp_path: Path, bad: str) -> None:
    def write(folder: Path) -> None:
        if bad == "link":
            (folder / "a").symlink_to("/etc/hostname")

    with pytest.raises(CheckpointWriteError, match=r"no rank wrote any file|symbolic link"):
        make_store(tmp_path).save(1, {}, write)


def test_leftovers_are_replaced(tmp_path: Path) -> None:
    for name in (".tmp-step-1", ".tmp-step-7", ".tmp-removed-step-3"):
        (tmp_path / name / "deepspeed").mkdir(parents=True)
        (tmp_path / name / "deepspeed" / "old.pt").write_bytes(b"old")
    save(make_store(tmp_path), 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step-1"]
    assert sorted(read_manifest(tmp_path / "step-1").files) == sorted(contents(1))


def test_saving_a_step_again_never_overwrites(tmp_path: Path) -> None:
    store = make_store(tmp_path, keep_last=2)
    assert [save(store, step).name for step in (5, 5, 5)] == ["step-5", "step-5.2", "step-5.3"]
    found = newest(tmp_path)
    assert (found.path.name, found.sequence) == ("step-5.3", 3)
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-5.2", "step-5.3"}


def test_newer_means_saved_later_not_a_higher_step(tmp_path: Path) -> None:
    """A run that went back to step 10 and saves step 15 resumes from 15, not from the step 20 it left."""
    store = two_checkpoints(tmp_path)
    save(store, 15)
    assert newest(tmp_path).step == 15


@pytest.mark.parametrize(
    ("keep_last", "every", "left"),
    [(1, None, [6]), (2, None, [5, 6]), (1, 2, [2, 4, 6]), (2, 3, [3, 5, 6]), (9, None, [1, 2, 3, 4, 5, 6])],
)
def test_retention(tmp_path: Path, keep_last: int, every: int | None, left: list[int]) -> None:
    store = CheckpointStore(tmp_path, keep_last=keep_last, keep_every_steps=every)
    for step in range(1, 7):
        save(store, step)
    assert sorted(read_manifest(path).step for path in tmp_path.glob("step-*")) == left


def test_removal_takes_the_manifest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    real_unlink, real_rmtree = Path.unlink, shutil.rmtree
    monkeypatch.setattr(Path, "unlink", lambda p, **k: (gone.append(p.name), real_unlink(p, **k))[1])
    monkeypatch.setattr(shutil, "rmtree", lambda p, **k: (gone.append(Path(p).name), real_rmtree(p, **k))[1])
    store = make_store(tmp_path, keep_last=1)
    save(store, 1)
    gone.clear()
    save(store, 2)
    assert gone[-2:] == [MANIFEST, ".tmp-removed-step-1"]


def test_old_one_that_cannot_be_removed_is_logged_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path, keep_last=1)
    save(store, 1)
    monkeypatch.setattr(store_module, "remove_checkpoint", fail)
    save(store, 2)
    assert len(caplog.messages) == 1 and "step-1 could not be removed" in caplog.messages[0]


def test_shares_cover_every_file_once_and_are_even() -> None:
    sizes = {f"f{i}": (i * 37) % 101 for i in range(40)}
    shares = [share_of(sizes, rank, 3) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    loads = [sum(sizes[name] for name in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes.values())


def test_errors_of_ours_keep_their_words() -> None:
    assert group_module.describe(CheckpointError("do this")) == "do this"
    assert group_module.describe(ValueError("a\nb")) == "ValueError: a b"


def test_phases_come_in_order_on_every_rank(tmp_path: Path) -> None:
    seen: list[list[str]] = [[], []]

    def work(group: Any) -> Path:
        store = make_store(tmp_path, on_phase=seen[group.rank].append)
        return store.save(1, {}, rank_writer(group.rank), group)

    on_ranks(2, work)
    assert tuple(seen[0]) == store_module.PHASES
    assert seen[1] == ["begun", "prepared", "written", "hashed", "retired"]
