"""Real ZeRO-2 engines of 1 and 2 gloo ranks that save, load and train: the material of test_reshard.py.

    DS_ACCELERATOR=cpu python zero_worker.py OUT

One process imports DeepSpeed and forks the ranks of each act, which costs seconds instead of a minute.
Every act runs in fp32 and bf16 below OUT/<precision>/:

    a2: 2 ranks train 3 steps          b1: 1 rank loads a2        c2: 2 ranks load b1      (2 -> 1 -> 2)
    a1: 1 rank trains 3 steps          b2: 2 ranks load a1        c1: 1 rank loads b2      (1 -> 2 -> 1)
    late2: a2's moment, written by a background thread while 2 more steps are trained
    direct2, via1, unmoved: 2 ranks load a2, b1, and b1 with only the masters scattered, and train 2 steps
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import deepspeed
import torch
import torch.distributed as dist

from persianmind.checkpoint.background import BackgroundSaver
from persianmind.checkpoint.store import CheckpointStore
from persianmind.common.errors import CheckpointWriteError
from persianmind.engine.deepspeed import files as engine_files
from persianmind.engine.deepspeed import reshard
from persianmind.engine.deepspeed.files import DeepSpeedSnapshot
from persianmind.engine.deepspeed.start import prepare_environment
from persianmind.engine.ranks import TorchGroup, ranks_from_environment

PRECISIONS = ("fp32", "bf16")


def own_group() -> TorchGroup:
    """As a run's saves have it: collectives apart from the gradients'."""
    return TorchGroup(ranks_from_environment(), own=True)


class OddSizes(torch.nn.Module):
    """A frozen layer with a low-rank adapter, some new embeddings, and one lonely scalar: odd sizes, so that
    slices are padded, parameters are cut in two, and rank 1 owns nothing but padding of the last group."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.frozen = torch.nn.Linear(17, 13)
        self.frozen.requires_grad_(False)
        self.lora_a = torch.nn.Parameter(torch.randn(3, 17))
        self.lora_b = torch.nn.Parameter(torch.randn(13, 3))
        self.embeddings = torch.nn.Parameter(torch.randn(7, 17))
        self.gate = torch.nn.Parameter(torch.randn(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.frozen(x) + (x @ self.lora_a.T) @ self.lora_b.T
        return (hidden * self.gate).float().pow(2).mean() + (x @ self.embeddings.T).float().pow(2).mean()


def open_zero2(precision: str) -> Any:
    model = OddSizes()
    groups = [
        {"params": [model.lora_a, model.lora_b], "lr": 1e-2, "weight_decay": 0.1},
        {"params": [model.embeddings], "lr": 3e-3},
        {"params": [model.gate], "lr": 1e-3},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": {"stage": 2, "overlap_comm": False, "reduce_bucket_size": 1000},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 1.0,
    }
    # A schedule in use: a resume that forgets a group's rate trains the next step with another one.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    return deepspeed.initialize(model=model, optimizer=optimizer, lr_scheduler=schedule, config=config)[0]


def train(engine: Any, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed * 100 + dist.get_rank())
    dtype = next(engine.module.parameters()).dtype
    for _ in range(steps):
        engine.backward(engine(torch.randn(4, 17, generator=generator).to(dtype)))
        engine.step()


def save(engine: Any, root: Path) -> None:
    snapshot = DeepSpeedSnapshot(engine_files.snapshot_engine(engine))
    store = CheckpointStore(root, keep_last=1, keep_every_steps=None)
    step = engine.global_steps
    store.save(step, {"step": step}, snapshot.write, own_group())


def load(engine: Any, root: Path) -> bool:
    store = CheckpointStore(root, keep_last=1, keep_every_steps=None)
    checkpoint = store.newest_good(own_group())
    assert checkpoint is not None
    return engine_files.load_engine(engine, checkpoint)


def masters_only(zero: Any, state: reshard.FullState) -> None:
    bare = {name: {"fp32": value["fp32"]} for name, value in state.parameters.items()}
    reshard.scatter_state(zero, reshard.FullState(bare, state.groups))


def fresh(out: Path, name: str) -> None:
    for precision in PRECISIONS:
        engine = open_zero2(precision)
        train(engine, 3, seed=1)
        save(engine, out / precision / name)


def moved(out: Path, source: str, name: str, *, steps: int = 0, resharded: bool = True) -> None:
    for precision in PRECISIONS:
        engine = open_zero2(precision)
        assert load(engine, out / precision / source) is resharded
        assert engine.global_steps == 3
        train(engine, steps, seed=2)
        save(engine, out / precision / name)


def late(out: Path, name: str) -> None:
    for precision in PRECISIONS:
        engine = open_zero2(precision)
        train(engine, 3, seed=1)
        snapshot = DeepSpeedSnapshot(engine_files.snapshot_engine(engine))
        trained_on = threading.Event()

        def write(
            to: Path, snapshot: DeepSpeedSnapshot = snapshot, trained_on: threading.Event = trained_on
        ) -> None:
            assert trained_on.wait(60)
            snapshot.write(to)

        store = CheckpointStore(out / precision / name, keep_last=1, keep_every_steps=None)
        saver = BackgroundSaver(store, own_group())
        saver.start(3, {"step": 3}, write)
        train(engine, 2, seed=2)
        assert not (out / precision / name / "step-3").exists()  # it is still being written
        trained_on.set()
        assert saver.finish() is not None


def one_rank_fails(out: Path) -> None:
    """Rank 1 cannot write; both ranks must raise the same error, and neither may hang."""
    engine = open_zero2("bf16")
    snapshot = DeepSpeedSnapshot(engine_files.snapshot_engine(engine))

    def write(to: Path) -> None:
        snapshot.write(to)
        if dist.get_rank() == 1:
            raise OSError(28, "No space left on device")

    store = CheckpointStore(out / "failed", keep_last=1, keep_every_steps=None)
    try:
        store.save(1, {}, write, own_group())
    except CheckpointWriteError as error:
        (out / f"failure-{dist.get_rank()}.txt").write_text(str(error))


def act_1(out: Path) -> None:
    fresh(out, "a2")
    late(out, "late2")
    one_rank_fails(out)


def act_2(out: Path) -> None:
    moved(out, "a2", "b1")
    fresh(out, "a1")


def act_3(out: Path) -> None:
    moved(out, "b1", "c2")
    moved(out, "a1", "b2")
    moved(out, "a2", "direct2", steps=2, resharded=False)
    moved(out, "b1", "via1", steps=2)
    with mock.patch.object(engine_files, "scatter_state", masters_only):
        moved(out, "b1", "unmoved", steps=2)


def act_4(out: Path) -> None:
    moved(out, "b2", "c1")


def run_ranks(world_size: int, act: Callable[[Path], None], out: Path) -> None:
    """Forks `world_size` ranks, runs `act` on each, and ends this process if one fails.

    LOCAL_SIZE stays unset: with it DeepSpeed reduces through shared memory and spins while it waits, which
    on a busy machine takes five times the CPU time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            try:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
                os.environ.update({name: str(value) for name, value in place.items()})
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                torch.set_num_threads(1)
                deepspeed.init_distributed("gloo", verbose=False)
                act(out)
                dist.barrier()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(f"{act.__name__} with {world_size} ranks ended with {codes}")


def main(out: Path) -> None:
    prepare_environment()  # PATH too: an older ninja than that of the runs would have both rebuild the kernel
    run_ranks(2, act_1, out)
    run_ranks(1, act_2, out)
    run_ranks(2, act_3, out)
    run_ranks(1, act_4, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
