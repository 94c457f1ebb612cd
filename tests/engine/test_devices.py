"""Which GPU a rank takes under each way of launching; GPUs are imitated by their count."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch

from persianmind.common.errors import MachineError
from persianmind.engine.deepspeed import devices, start
from persianmind.engine.deepspeed.devices import device_index
from persianmind.engine.ranks import Ranks, ranks_from_environment
from persianmind.engine.registry import backend

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "CUDA_VISIBLE_DEVICES")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


class ImitatedCuda:
    """DeepSpeed's accelerator of a machine with NVIDIA GPUs; remembers the device that was chosen."""

    def __init__(self, visible: int) -> None:
        self.visible = visible
        self.chosen: int | None = None

    def device_name(self, index: int | None = None) -> str:
        return "cuda" if index is None else f"cuda:{index}"

    def device_count(self) -> int:
        return self.visible

    def set_device(self, index: int) -> None:
        if not 0 <= index < self.visible:
            raise RuntimeError("CUDA error: invalid device ordinal")
        self.chosen = index

    def communication_backend_name(self) -> str:
        return "nccl"


@pytest.fixture
def imitated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that makes DeepSpeed see this number of GPUs."""
    import deepspeed.accelerator

    def see(visible: int) -> ImitatedCuda:
        accelerator = ImitatedCuda(visible)
        monkeypatch.setattr(deepspeed.accelerator, "get_accelerator", lambda: accelerator)
        return accelerator

    yield see


@pytest.mark.parametrize(
    ("named", "visible", "local_rank", "local_size", "expected"),
    [
        (None, 4, 3, 4, 3),  # a launcher that leaves the variable alone
        ("0,1,2,3", 4, 2, 4, 2),  # the DeepSpeed launcher; Ray Train by default
        ("4,5", 2, 1, 2, 1),  # half of a machine
        (None, 4, 1, 2, 1),  # fewer ranks than GPUs
        ("3", 1, 3, 4, 0),  # a GPU of its own: Ray without sharing, srun --gpus-per-task=1
        ("GPU-8f6d2c3a", 1, 2, 4, 0),
        (None, 1, 0, 1, 0),
    ],
)
def test_imitated_gpus_give_each_rank_its_own(
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
    visible: int,
    local_rank: int,
    local_size: int,
    expected: int,
) -> None:
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert device_index(Ranks(5, 8, local_rank, local_size), visible) == expected


@pytest.mark.parametrize(
    ("named", "visible", "words"),
    [
        (None, 1, r"4 ranks, and rank 1 sees 1 GPU\(s\) \(CUDA_VISIBLE_DEVICES unset\).*start 1 rank"),
        ("0,1,2,3", 1, r"sees 1 GPU\(s\) \(CUDA_VISIBLE_DEVICES=0,1,2,3\)"),  # --num_gpus 4 on a box of one
        ("0,1", 2, r"sees 2 GPU\(s\).*start 2 rank"),
        ("", 0, r"sees 0 GPU\(s\).*start no rank"),
    ],
)
def test_imitated_gpus_that_two_ranks_would_share_are_refused(
    monkeypatch: pytest.MonkeyPatch, named: str | None, visible: int, words: str
) -> None:
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with pytest.raises(MachineError, match=words):
        device_index(Ranks(1, 4, 1, 4), visible)


def test_imitated_gpu_of_its_own_is_taken_by_us_and_by_deepspeed(
    monkeypatch: pytest.MonkeyPatch, imitated: Any
) -> None:
    """One worker per GPU that sees it alone: index 0, whatever its local rank."""
    started = start_on(imitated(1), Ranks(3, 4, 3, 4), "3", monkeypatch)
    assert started.accelerator.chosen == 0
    assert started.local_rank == "0"  # where DeepSpeed puts the model and binds NCCL
    assert backend().device(Ranks(3, 4, 3, 4)) == torch.device("cuda", 0)


def test_imitated_gpus_that_all_see_are_taken_by_local_rank(
    monkeypatch: pytest.MonkeyPatch, imitated: Any
) -> None:
    started = start_on(imitated(4), Ranks(7, 8, 3, 4), "0,1,2,3", monkeypatch)
    assert (started.accelerator.chosen, started.local_rank) == (3, "3")
    assert backend().device(Ranks(7, 8, 3, 4)) == torch.device("cuda", 3)


def test_control_the_local_rank_alone_is_no_device_of_a_worker_with_one_gpu(
    monkeypatch: pytest.MonkeyPatch, imitated: Any
) -> None:
    monkeypatch.setattr(devices, "device_index", lambda ranks, visible: ranks.local_rank)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        start_on(imitated(1), Ranks(3, 4, 3, 4), "3", monkeypatch)


def start_on(
    accelerator: ImitatedCuda, ranks: Ranks, named: str, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """`start_distributed` up to the process group, which is imitated."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    for name, value in (
        ("RANK", ranks.rank),
        ("WORLD_SIZE", ranks.world_size),
        ("LOCAL_RANK", ranks.local_rank),
    ):
        monkeypatch.setenv(name, str(value))
    import deepspeed

    monkeypatch.setattr(deepspeed, "init_distributed", lambda **_: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(start, "_come_together", lambda *_: None)
    monkeypatch.setattr(start, "load_cpu_kernel", lambda: None)
    monkeypatch.setattr(start, "forget_shared_buffer", lambda rank: None)
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    monkeypatch.setenv("LOCAL_SIZE", "1")
    start.start_distributed(ranks)
    return SimpleNamespace(accelerator=accelerator, local_rank=os.environ["LOCAL_RANK"])


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        # Two boxes of 4 and 2 GPUs; rank 5 is the second of the second box.
        ({"LOCAL_SIZE": "2"}, 2),  # the DeepSpeed launcher
        ({"LOCAL_WORLD_SIZE": "2"}, 2),  # torchrun, Ray Train
        ({}, 6),  # no launcher says: one box
    ],
)
def test_local_size_is_that_of_the_own_box(
    monkeypatch: pytest.MonkeyPatch, launcher: dict[str, str], expected: int
) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", **launcher}.items():
        monkeypatch.setenv(name, value)
    assert ranks_from_environment() == Ranks(5, 6, 1, expected)


def test_without_a_gpu_the_device_is_the_cpu() -> None:
    assert "deepspeed" in sys.modules
    assert backend().device(Ranks(1, 2, 1, 2)) == torch.device("cpu")
