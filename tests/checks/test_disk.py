"""Room, speed and kind of the run folder's file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from persianmind.checks import disk
from persianmind.checks.base import CheckContext, Level
from persianmind.checks.disk import (
    check_disk_speed,
    check_room,
    file_system_finding,
    measure_writing,
    speed_finding,
)
from persianmind.common.errors import MachineError
from persianmind.run.folder import RunFolder

# As proc(5) describes mountinfo; the last folder's name has a space in it.
TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:27 / /mnt/team rw,relatime shared:9 master:2 - nfs4 server:/export rw,vers=4.2
32 31 254:1 / /mnt/team/scratch rw,relatime - xfs /dev/nvme0n1p1 rw
33 22 0:29 / /mnt/c rw,noatime - 9p drvfs rw
34 22 0:30 / /mnt/my\\040disk rw - fuse.sshfs me@host: rw
"""


def test_disk_without_room(tmp_path: Path) -> None:
    check_room(tmp_path / "not" / "made" / "yet", 1)
    with pytest.raises(MachineError, match="GB free and the run needs"):
        check_room(tmp_path / "not" / "made" / "yet", 10**18)
    assert list(tmp_path.iterdir()) == []


def test_a_network_file_system_is_named_and_a_disk_below_it_is_not() -> None:
    def kind(place: str) -> tuple[Level, str]:
        found = file_system_finding(Path(place), TABLE)
        return found.level, found.detail

    assert kind("/home/me/runs")[0] is Level.OK
    assert kind("/mnt/team/runs")[0] is Level.WARN and "nfs4" in kind("/mnt/team/runs")[1]
    assert kind("/mnt/teams/runs")[0] is Level.OK  # a name that begins alike is another folder
    assert kind("/mnt/team/scratch/runs") == (Level.OK, "/mnt/team/scratch/runs is on xfs")
    assert kind("/mnt/c/runs")[0] is Level.WARN and "WSL2" in kind("/mnt/c/runs")[1]
    assert kind("/mnt/my disk/runs")[0] is Level.WARN


def test_writing_is_bounded_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "WRITTEN_BYTES", 8 << 20)
    bytes_per_s, fsync_s = measure_writing(tmp_path)
    assert bytes_per_s > 0 and fsync_s >= 0
    context = CheckContext(None, Path("zero2.json"), RunFolder(tmp_path / "runs"))
    (found,) = check_disk_speed(context)
    assert found.level in (Level.OK, Level.WARN) and list(tmp_path.iterdir()) == []
    assert measure_writing(tmp_path, clock_s=0.0)[0] == 0.0  # no piece is begun late


def test_a_slow_disk_says_what_a_checkpoint_costs() -> None:
    found = speed_finding(20e6, 0.5)
    assert found.level is Level.WARN and "50 s per GB" in found.detail
    assert speed_finding(400e6, 0.01).level is Level.OK


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    (found,) = check_disk_speed(CheckContext(None, Path("zero2.json"), RunFolder(tmp_path)))
    assert found.level is Level.FAIL and "cannot be written" in found.detail


def test_a_write_that_fails_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> tuple[float, float]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "measure_writing", full)
    (found,) = check_disk_speed(CheckContext(None, Path("zero2.json"), RunFolder(tmp_path)))
    assert found.level is Level.FAIL and "No space left" in found.detail
