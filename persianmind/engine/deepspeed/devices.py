"""Which GPU of those it sees a rank computes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from persianmind.common.errors import MachineError
from persianmind.engine.ranks import Ranks

if TYPE_CHECKING:
    import torch


def rank_device(ranks: Ranks) -> torch.device:
    """Where this rank computes; imports torch.

    Raises:
        MachineError: this process does not see a GPU of its own.
    """
    import torch
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator.device_name() != "cuda":
        return torch.device(accelerator.device_name())
    return torch.device("cuda", device_index(ranks, accelerator.device_count()))


def device_index(ranks: Ranks, visible: int) -> int:
    """The index of a rank's GPU among the `visible` GPUs of its process.

    Launchers do it in two ways. Every rank of a node sees all GPUs of the node's ranks and takes that of its
    local rank: the DeepSpeed launcher, torchrun, Ray Train by default. Or each sees its own GPU alone, as
    number 0: Ray Train with TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES=0, `srun --gpus-per-task=1`.

    Args:
        visible: the count torch gives, under CUDA_VISIBLE_DEVICES.

    Raises:
        MachineError: two ranks of this node would share a GPU, or there is none.
    """
    if visible >= ranks.local_size:
        return ranks.local_rank
    named = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    if visible == 1 and len(named) == 1:
        return 0
    where = f"CUDA_VISIBLE_DEVICES={','.join(named)}" if named else "CUDA_VISIBLE_DEVICES unset"
    raise MachineError(
        f"{ranks.node} runs {ranks.local_size} ranks, and rank {ranks.rank} sees {visible} GPU(s) ({where}): "
        f"each rank needs a GPU of its own; start {visible or 'no'} rank(s) here (deepspeed --num_gpus), "
        "make more GPUs visible, or, where another launcher started them, set LOCAL_RANK and LOCAL_WORLD_SIZE"
    )
