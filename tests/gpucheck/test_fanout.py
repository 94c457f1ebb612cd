"""Ranks of a part: each has its place, and the one that fails is named while the others are ended."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from persianmind.gpucheck.fanout import RankFailedError, run_on_ranks
from persianmind.gpucheck.findings import NotApplicableError
from persianmind.gpucheck.setting import PartSetting, require_ranks

MODULE = "tests.gpucheck.faulty_parts"


@pytest.fixture
def setting(tmp_path: Path) -> PartSetting:
    return PartSetting(small=True, folder=tmp_path, limit_s=60)


def test_each_rank_has_its_place_and_what_was_asked(setting: PartSetting) -> None:
    found = run_on_ranks(
        f"{MODULE}:one_rank",
        setting,
        2,
        label="two",
        environment={"EXTRA": "1"},
        options={"word": "hello"},
    )
    assert [one["RANK"] for one in found] == [one["LOCAL_RANK"] for one in found] == ["0", "1"]
    assert {one["WORLD_SIZE"] for one in found} == {"2"} and {one["word"] for one in found} == {"hello"}
    assert len({one["MASTER_PORT"] for one in found}) == 1 and {one["EXTRA"] for one in found} == {"1"}


def test_the_rank_that_raises_is_named_and_the_others_are_ended(setting: PartSetting, tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match="label: rank 1: RuntimeError: OutOfMemoryError"):
        run_on_ranks(
            f"{MODULE}:second_rank_raises", setting, 2, label="label", options={"pids": str(tmp_path)}
        )
    assert not psutil.pid_exists(int((tmp_path / "waiting").read_text()))


def test_a_rank_that_dies_without_a_word_is_named(setting: PartSetting) -> None:
    with pytest.raises(RankFailedError, match="rank 1 ended with status -9"):
        run_on_ranks(f"{MODULE}:second_rank_dies", setting, 2, label="label")


def test_too_few_gpus_are_not_applicable_imitated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = PartSetting(small=False, folder=tmp_path, limit_s=60)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(NotApplicableError, match="needs 2 GPUs or more, and 1 is visible"):
        require_ranks(setting, 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert require_ranks(setting, 2) == 2
