"""Every rank looks at its own device before it trains; a node says once what is wrong. GPUs are imitated."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from persianmind.checks import device
from persianmind.common.errors import MachineError
from persianmind.engine.ranks import Ranks
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.train import command
from persianmind.train.command import run_request
from persianmind.train.run import RunRequest
from tests.support.gpus import CUDA_13, RTX_2080, RTX_3090, Machine, decide_imitated
from tests.support.launch import ZERO2
from tests.support.log import logged


def request_in(folder: Path) -> RunRequest:
    return RunRequest(load_recipe("tiny", ["train.precision=bf16"]), ZERO2, RunFolder(folder / "run"))


@pytest.mark.parametrize("machine", [Machine([RTX_3090], driver="535.1"), Machine([RTX_2080])])
@pytest.mark.parametrize(("ranks", "is_quiet"), [(Ranks(4, 8, 0, 4), False), (Ranks(5, 8, 1, 4), True)])
def test_imitated_second_node_with_another_gpu_or_driver_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine, ranks: Ranks, is_quiet: bool
) -> None:
    found = decide_imitated(monkeypatch, tmp_path / "root", machine, CUDA_13)
    monkeypatch.setattr(device, "current_device", lambda: found)
    with pytest.raises(MachineError) as raised:
        run_request(request_in(tmp_path), ranks, lambda folder: folder)
    assert raised.value.by_all_ranks is is_quiet
    assert not (tmp_path / "run").exists()


def test_imitated_gpus_are_named_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = decide_imitated(monkeypatch, tmp_path / "root", Machine([RTX_3090] * 2), CUDA_13)
    monkeypatch.setattr(device, "current_device", lambda: found)
    monkeypatch.setattr(command, "run_training", lambda *_: None)
    with logged(logging.INFO) as lines:
        run_request(request_in(tmp_path), Ranks(1, 2, 1, 2), lambda folder: folder)
    assert lines == ["device: 2 x NVIDIA GeForce RTX 3090 (capability 8.6), driver 580.65.06, bf16"]
