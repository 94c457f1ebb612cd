"""launcher/train.py with faults at exact events: FAULT="kind:rank:step", several joined by ";".

kill, kill-in, kill-after: SIGKILL to this rank before, within and after the step. term, int, hup: SIGTERM,
SIGINT, SIGHUP before it; term-twice: two of them, which count as two; term-eval: in the first evaluation from
that step on; term-prepare, term-start, term-export: in these phases, whatever the step; stay-prepare: this
rank stays there. kill-start: SIGKILL as the group is made, the buffers in shared memory already there.
nan, inf, spike: this rank's loss times that (100 for a spike) at that step alone; nan-on: from that step on.
grad-nan, grad-inf: one gradient; data-nan, data-inf: the embeddings that this rank's sequences look up.
log-full: metrics.jsonl of that step does not fit on the disk.
overwrite, cut: the token shards of the run, which are being read. unchecked (a control): no shard is
held against its hash.
hang: this rank sleeps for ever at the step; freeze: SIGSTOP. unwatched (a control): no watchdog on any rank.
perturb: random numbers are drawn before a checkpoint is restored; no-rule: and none are set for other ranks.
Faults of saves and of preparation have names of their own: faulty_saves.py, faulty_preparation.py.
FROZEN=1 prints a hash of every frozen weight at the end of training.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from persianmind.common.log import print_line
from persianmind.data.read import shard
from persianmind.data.read.shard import ShardReader
from persianmind.engine.deepspeed import start
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.model.adapted import AdaptedModel
from persianmind.report.page import write_report
from persianmind.run.log import RunLog
from persianmind.run.records import StepRecord
from persianmind.train import assemble, command, finish, loop, run, stopping
from persianmind.train.callbacks import save
from persianmind.train.callbacks.save import SaveCallback
from persianmind.train.callbacks.watchdog import Watchdog
from persianmind.train.context import RunContext
from tests.faults import faulty_preparation, faulty_saves
from tests.support.full_disk import full_disk

SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "hup": signal.SIGHUP,
    "freeze": signal.SIGSTOP,
}
# Where a phase begins: (module, its function).
PHASES = {
    "term-prepare": [(run, "prepare"), (run, "wait_until_prepared")],
    "stay-prepare": [(run, "prepare")],
    "term-start": [(assemble, "_build_model")],
    "term-export": [(finish, "_export")],
    "kill-start": [(start, "forget_shared_buffer")],
}
FACTORS = {"nan": float("nan"), "nan-on": float("nan"), "inf": float("inf"), "spike": 100.0}
INPUTS = {"data-nan": float("nan"), "data-inf": float("inf")}
GRADIENTS = {"grad-nan": float("nan"), "grad-inf": float("inf")}


def main() -> None:
    """Installs the faults named by the environment, then runs the ordinary entry."""
    me = os.environ.get("RANK", "0")
    for fault in filter(None, os.environ.get("FAULT", "").split(";")):
        kind, rank, step, *more = fault.split(":")
        if kind in faulty_saves.KINDS:
            faulty_saves.install(kind, int(rank), int(step), *more)
        elif kind in faulty_preparation.FAULTS:
            if rank == me:
                faulty_preparation.install(kind)
        elif kind in CONTROLS:
            CONTROLS[kind]()
        elif rank == me and kind in ELSEWHERE:
            ELSEWHERE[kind](int(step))
        elif rank == me and kind in PHASES:
            _install_phase(kind)
        elif rank == me:
            _install(kind, int(step))
    if os.environ.get("FROZEN"):
        _print_frozen()
    command.main(write_report)


def _now(engine: DeepSpeedEngine) -> int:
    """The number of the step about to be done: the engine's counter comes back with a checkpoint."""
    return engine.steps + 1


def _install(kind: str, step: int) -> None:
    ordinary_step, ordinary_forward = DeepSpeedEngine.step, AdaptedModel.forward
    active = False

    def faulty_step(self: DeepSpeedEngine, *arguments: Any, **options: Any) -> Any:
        nonlocal active
        active = _now(self) == step or (kind.endswith("-on") and _now(self) > step)
        if active:
            _at_step(kind, self, lambda: active)
        result = ordinary_step(self, *arguments, **options)
        if active and kind == "kill-after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def faulty_forward(self: AdaptedModel, *arguments: Any, **options: Any) -> Any:
        loss = ordinary_forward(self, *arguments, **options)
        if active and kind == "kill-in":
            os.kill(os.getpid(), signal.SIGKILL)
        return loss * FACTORS[kind] if active and kind in FACTORS and self.training else loss

    DeepSpeedEngine.step = faulty_step  # type: ignore[method-assign]
    AdaptedModel.forward = faulty_forward  # type: ignore[method-assign]


def _install_phase(kind: str) -> None:
    for module, name in PHASES[kind]:

        def faulty(*arguments: Any, ordinary: Any = getattr(module, name), **options: Any) -> Any:
            if kind == "stay-prepare":
                time.sleep(3600)
            os.kill(os.getpid(), SIGNALS[kind.partition("-")[0]])
            return ordinary(*arguments, **options)

        setattr(module, name, faulty)


def _at_step(kind: str, engine: DeepSpeedEngine, active: Any) -> None:
    if kind == "term-twice":
        stopping.SAME_REQUEST_S = 0.0
    for number in {"term-twice": ["term", "term"]}.get(kind, [kind]):
        if number in SIGNALS:
            os.kill(os.getpid(), SIGNALS[number])
    if kind in ("overwrite", "cut"):
        _damage_shards(kind)
    if kind == "hang":
        time.sleep(3600)
    if kind in GRADIENTS:
        value = GRADIENTS[kind]
        first = next(iter(engine.model.trained().values()))
        first.register_hook(lambda gradient: gradient * value if active() else gradient)
    if kind in INPUTS:
        factor = INPUTS[kind]
        engine.model.causal_lm.get_input_embeddings().register_forward_hook(
            lambda _module, _inputs, output: output * factor if active() else output
        )


def _install_evaluation(step: int) -> None:
    ordinary, sent = DeepSpeedEngine.target_losses, False

    def faulty(self: DeepSpeedEngine, *arguments: Any, **options: Any) -> Any:
        nonlocal sent
        if self.steps >= step and not sent:
            sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        return ordinary(self, *arguments, **options)

    DeepSpeedEngine.target_losses = faulty  # type: ignore[method-assign]


def _install_full_log(step: int) -> None:
    ordinary = RunLog.append

    def faulty(self: RunLog, record: StepRecord) -> None:
        with full_disk(20) if record.step == step else nullcontext():
            ordinary(self, record)

    RunLog.append = faulty  # type: ignore[method-assign]


def _unwatched() -> None:
    Watchdog.watch = lambda self: None  # type: ignore[method-assign]


def _perturb() -> None:
    import torch

    ordinary = SaveCallback.restore

    def faulty(self: SaveCallback, *arguments: Any) -> None:
        torch.rand(int.from_bytes(os.urandom(1)) + 1)
        ordinary(self, *arguments)

    SaveCallback.restore = faulty  # type: ignore[method-assign]


def _no_rule() -> None:
    save.seed_rng = lambda *_: None


def _damage_shards(kind: str) -> None:
    """In place: the files stay those that the run has open."""
    run = Path(sys.argv[sys.argv.index("--output") + 1])
    for path in run.glob("data/*/shard-*.safetensors"):
        size = path.stat().st_size
        with path.open("r+b") as handle:
            handle.seek(size // 3)
            handle.truncate() if kind == "cut" else handle.write(bytes(size // 3))


def _unchecked() -> None:
    ShardReader.was_touched = property(lambda self: False)  # type: ignore[assignment]
    ShardReader.verify = lambda self: None  # type: ignore[method-assign]
    shard._hash = lambda *parts: 0
    shard._is_as_written = lambda *_: True


ELSEWHERE = {"term-eval": _install_evaluation, "log-full": _install_full_log}
CONTROLS = {
    "unwatched": _unwatched,
    "perturb": _perturb,
    "no-rule": _no_rule,
    "unchecked": _unchecked,
    **faulty_preparation.CONTROLS,
}


def _print_frozen() -> None:
    import torch

    ordinary = loop.train_stages

    def printing(context: RunContext, barrier: Any) -> None:
        try:
            ordinary(context, barrier)
        finally:
            trained = set(context.engine.model.trained())
            rest = [v for n, v in context.engine.model.named_parameters() if n not in trained]
            hashes = [int(torch.hash_tensor(v.detach()).view(torch.int64)) for v in rest]
            print_line(f"frozen {len(hashes)} {hash(tuple(hashes))}")

    loop.train_stages = printing


if __name__ == "__main__":
    main()
