"""How long a save stops training and how long a resume takes, at three sizes of trained parameters.

    DS_ACCELERATOR=cpu python tests/checkpoint/measure_save.py [--quick] [--json FILE]

One rank, bf16, ZeRO-2, torch AdamW. `snapshot_ms` is the stall of a background save, `save_ms` that of a save
in the foreground (snapshot, write, fsync, hash, commit), `verify_ms` and `load_ms` are what a resume adds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from persianmind.checkpoint.engine_files import load_engine, snapshot_engine, write_snapshot
from persianmind.checkpoint.reshard import gather_state, scatter_state
from persianmind.checkpoint.store import CheckpointStore

PLACE = {
    "DS_ACCELERATOR": "cpu",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29631",
}
SIZES = {"quick": (100_000, 1_000_000), "full": (1_000_000, 10_000_000, 50_000_000)}


def make_engine(num_parameters: int) -> Any:
    """An engine that trains `num_parameters`, in 64 tensors, beside a frozen one."""
    import deepspeed

    model = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(num_parameters // 64)) for _ in range(64)])
    model.append(torch.nn.Parameter(torch.zeros(8), requires_grad=False))
    optimizer = torch.optim.AdamW([one for one in model if one.requires_grad])
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 20_000_000},
        "zero_allow_untested_optimizer": True,
    }
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    engine.backward(sum(one.float().pow(2).sum() for one in engine.module if one.requires_grad))
    engine.step()
    return engine


def timed_ms(action: Callable[[], Any]) -> tuple[float, Any]:
    start_s = time.perf_counter()
    result = action()
    return (time.perf_counter() - start_s) * 1000, result


def once(engine: Any, folder: Path) -> dict[str, float]:
    """One save and one resume of each kind."""
    store = CheckpointStore(folder, keep_last=1, keep_every_steps=None)
    snapshot_ms, snapshot = timed_ms(lambda: snapshot_engine(engine))
    write_ms, _ = timed_ms(lambda: store.save(1, {}, lambda to: write_snapshot(snapshot, to)))
    verify_ms, found = timed_ms(lambda: store.newest_good(print))
    load_ms, _ = timed_ms(lambda: load_engine(engine, found))
    reshard_ms, _ = timed_ms(lambda: scatter_state(engine.optimizer, gather_state(found)))
    return {
        "size_bytes": float(found.size_bytes),
        "snapshot_ms": snapshot_ms,
        "save_ms": snapshot_ms + write_ms,
        "verify_ms": verify_ms,
        "load_ms": load_ms,
        "reshard_ms": reshard_ms,
    }


def measure(num_parameters: int, repeats: int) -> dict[str, float]:
    """Medians over `repeats` saves and resumes."""
    engine = make_engine(num_parameters)
    rows: list[dict[str, float]] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(once(engine, Path(folder)))
    middle = {key: sorted(row[key] for row in rows)[len(rows) // 2] for key in rows[0]}
    return {"trained_parameters": float(num_parameters), **{key: round(v, 1) for key, v in middle.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for name, value in PLACE.items():
        os.environ.setdefault(name, value)
    import deepspeed  # after the environment is set: it picks its accelerator while it is imported

    deepspeed.init_distributed("gloo", verbose=False)
    sizes = SIZES["quick" if options.quick else "full"]
    results = [measure(size, repeats=2 if options.quick else 3) for size in sizes]
    for row in results:
        print(" ".join(f"{key}={value:,.1f}" for key, value in row.items()), file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps({"rows": results, "cpus": os.cpu_count()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
