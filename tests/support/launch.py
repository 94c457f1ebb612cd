"""The one helper through which tests run the real launcher with real ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "launcher" / "train.py"
ZERO2 = ROOT / "ds_configs" / "zero2.json"
BIN = Path(sys.executable).parent
# What launchers and libraries print that asks for nothing.
CHATTER = ("[INFO]", "[WARNING]", "WORLD INFO", "world_info", "Warning", "it/s]", "built successfully")


@dataclass(frozen=True)
class Launched:
    """A launcher call that has ended."""

    code: int
    text: str
    seconds: float
    run: Path
    port: int = 0

    @property
    def shared_buffers(self) -> list[Path]:
        """What its ranks left in the machine's shared memory: 67 MB each."""
        return list(Path("/dev/shm").glob(f"deepspeed_allreduce_buffer_*_{self.port}_*"))

    @property
    def errors(self) -> list[str]:
        """The lines our own error reporting printed."""
        return [line for line in self.text.splitlines() if line.startswith("persianmind: error:")]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """metrics.jsonl, a dict a line."""
        lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def results(self) -> dict[str, Any]:
        """results.json."""
        results: dict[str, Any] = json.loads((self.run / "results.json").read_text(encoding="utf-8"))
        return results

    def bits(self, stage: str, language: str) -> float:
        """Bits per byte of one stage on one language, from results.json."""
        (found,) = (
            one["bits_per_byte"]
            for one in self.results["evaluation"]
            if (one["stage"], one["language"]) == (stage, language)
        )
        return float(found)

    @property
    def stages(self) -> list[str]:
        """Stages that were evaluated, in order."""
        return list(dict.fromkeys(one["stage"] for one in self.results["evaluation"]))


def command(
    arguments: Sequence[str], *, ranks: int, script: Path = TRAIN, port: int | None = None
) -> list[str]:
    """The command line of `ranks` ranks; 0 means without the DeepSpeed launcher."""
    flags = ["--deepspeed", str(ZERO2), *arguments]
    if ranks == 0:
        return [sys.executable, str(script), *flags]
    launcher = [
        str(BIN / "deepspeed"),
        "--num_accelerators",
        str(ranks),
        "--master_port",
        str(port or free_port()),
    ]
    return [*launcher, str(script), *flags]


def launch(
    *arguments: str,
    ranks: int = 2,
    script: Path = TRAIN,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 400,
) -> Launched:
    """Runs launcher/train.py (or a test's own entry) to its end; reads `--output` back from the arguments."""
    started_s = time.monotonic()
    port = free_port()
    done = subprocess.run(
        command(arguments, ranks=ranks, script=script, port=port),
        env={**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT), **(environment or {})},
        cwd=cwd or ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    output = arguments[arguments.index("--output") + 1] if "--output" in arguments else "runs/none"
    return Launched(done.returncode, done.stdout, time.monotonic() - started_s, Path(output), port)


def free_port() -> int:
    """A loopback port nobody listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
