"""Evaluating on several ranks: as `torchrun` or `deepspeed` starts them, over gloo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from persianmind.engine.ranks import Ranks, TorchGroup
from persianmind.evaluate.session import Share


@contextmanager
def shared_among(ranks: Ranks) -> Iterator[Share]:
    """This process's share; the process group is made and left where there are others.

    Records are exchanged, not tensors of the model, so gloo does on GPUs as well.
    """
    if ranks.world_size == 1:
        yield Share()
        return
    import torch.distributed

    torch.distributed.init_process_group("gloo", rank=ranks.rank, world_size=ranks.world_size)
    try:
        yield Share(ranks.rank, ranks.world_size, TorchGroup(ranks).all_gather)
    finally:
        torch.distributed.destroy_process_group()
