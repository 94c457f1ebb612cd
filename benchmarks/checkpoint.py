"""How long a save stops training, and how long a restart takes to its first new step, at three sizes.

    python benchmarks/checkpoint.py [--quick] [--json FILE]

One rank, bf16, ZeRO-2, torch AdamW. `snapshot_ms` is the stall of a background save, `save_ms` that of a save
in the foreground (snapshot, write, fsync, hash, commit); `verify_ms` and `load_ms` are what a resume adds,
`reshard_ms` loads through another number of ranks. `resume_s` is a new process from its start to the end of
its first new step: Python, torch and DeepSpeed imported, engine made, checkpoint verified and loaded, a step.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

SIZES = {"quick": (100_000, 1_000_000), "full": (1_000_000, 10_000_000, 50_000_000)}
COLUMNS = ("snapshot_ms", "save_ms", "verify_ms", "load_ms", "reshard_ms", "resume_s")


def main() -> None:
    """Measures every size and prints one table."""
    options = _options()
    _place()
    if options.resume:
        print(json.dumps(resume(Path(options.resume), options.parameters)))
        return
    sizes = SIZES["quick" if options.quick else "full"]
    results = [measure(size, repeats=2 if options.quick else 3) for size in sizes]
    print(f"{'trained':>12}{'MB':>8}" + "".join(f"{name:>13}" for name in COLUMNS))
    for one in results:
        values = "".join(f"{one[name]:>13,.1f}" for name in COLUMNS)
        print(f"{one['trained_parameters']:>12,.0f}{one['size_bytes'] / 1e6:>8,.1f}{values}")
    if options.json:
        Path(options.json).write_text(
            json.dumps({"results": results, "cpus": os.cpu_count()}, indent=1) + "\n"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small sizes, two repeats")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--resume", help=argparse.SUPPRESS)
    parser.add_argument("--parameters", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _place() -> None:
    """One rank on a free loopback port; before DeepSpeed is imported, which picks its accelerator then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {"DS_ACCELERATOR": "cpu", **place}.items():
        os.environ.setdefault(name, value)
    os.environ["MASTER_PORT"] = port


def make_engine(num_parameters: int) -> Any:
    """An engine that trains `num_parameters`, in 64 tensors, beside a frozen one."""
    import deepspeed
    import torch

    if not torch.distributed.is_initialized():
        deepspeed.init_distributed("gloo", verbose=False)
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(num_parameters // 64)) for _ in range(64)])
    model.append(torch.nn.Parameter(torch.zeros(8), requires_grad=False))
    optimizer = torch.optim.AdamW([one for one in model if one.requires_grad])
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 20_000_000},
        "zero_allow_untested_optimizer": True,
    }
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]


def train_a_step(engine: Any) -> None:
    """Forward, backward and update of a sum of squares."""
    engine.backward(sum(one.float().pow(2).sum() for one in engine.module if one.requires_grad))
    engine.step()


def measure(num_parameters: int, repeats: int) -> dict[str, float]:
    """Medians over `repeats` saves and resumes."""
    engine = make_engine(num_parameters)
    train_a_step(engine)
    measured: list[dict[str, float]] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            measured.append(once(engine, num_parameters, Path(folder)))
    engine.destroy()
    middle = {key: sorted(one[key] for one in measured)[len(measured) // 2] for key in measured[0]}
    return {"trained_parameters": float(num_parameters), **middle}


def once(engine: Any, num_parameters: int, folder: Path) -> dict[str, float]:
    """One save and one resume of each kind."""
    from persianmind.checkpoint.store import CheckpointStore
    from persianmind.engine.deepspeed.files import DeepSpeedSnapshot, load_engine, snapshot_engine
    from persianmind.engine.deepspeed.reshard import gather_state, scatter_state

    store = CheckpointStore(folder, keep_last=1, keep_every_steps=None)
    snapshot_ms, snapshot = timed_ms(lambda: DeepSpeedSnapshot(snapshot_engine(engine)))
    write_ms, _ = timed_ms(lambda: store.save(1, {}, snapshot.write))
    verify_ms, found = timed_ms(store.newest_good)
    load_ms, _ = timed_ms(lambda: load_engine(engine, found))
    reshard_ms, _ = timed_ms(lambda: scatter_state(engine.optimizer, gather_state(found)))
    command = [sys.executable, __file__, "--resume", str(folder), "--parameters", str(num_parameters)]
    resume_ms, _ = timed_ms(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    return {
        "size_bytes": float(found.size_bytes),
        "snapshot_ms": snapshot_ms,
        "save_ms": snapshot_ms + write_ms,
        "verify_ms": verify_ms,
        "load_ms": load_ms,
        "reshard_ms": reshard_ms,
        "resume_s": resume_ms / 1000,
    }


def resume(folder: Path, num_parameters: int) -> dict[str, int]:
    """What a restarted process does: engine, newest whole checkpoint, one step."""
    from persianmind.checkpoint.store import CheckpointStore
    from persianmind.engine.deepspeed.files import load_engine

    engine = make_engine(num_parameters)
    found = CheckpointStore(folder, keep_last=1, keep_every_steps=None).newest_good()
    assert found is not None
    load_engine(engine, found)
    train_a_step(engine)
    return {"steps": engine.global_steps}


def timed_ms(action: Callable[[], Any]) -> tuple[float, Any]:
    """(milliseconds, result)."""
    start_s = time.perf_counter()
    result = action()
    return (time.perf_counter() - start_s) * 1000, result


if __name__ == "__main__":
    main()
