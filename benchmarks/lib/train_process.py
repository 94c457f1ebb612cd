"""Running one part of benchmarks/train.py in processes of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.checks.device import cpu_flags
from persianmind.common.device.instructions import INT8_INSTRUCTIONS

ROOT = Path(__file__).resolve().parents[2]
TWO_RANKS = ("ours", "ours-selective", "ours-full", "ours-int8", "hf", "trl", "traffic")


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs parts (`SIZE.SIDE`) over one folder. sites: folders of packages beside those of this Python."""

    script: Path
    folder: Path
    sites: Sequence[str]

    def part(self, part: str, amount: int) -> dict[str, Any]:
        """One part in fresh processes; {"missing": why} where it cannot run.

        Args:
            amount: useful tokens to train on, or rounds.

        Raises:
            SystemExit: it failed; with the end of what it wrote.
        """
        out = self.folder / f"{part}.json"
        out.unlink(missing_ok=True)
        asked = [str(self.script), "--part", part, "--folder", str(self.folder), "--amount", str(amount)]
        threads, launcher = 2, [sys.executable]
        if part.split(".")[1] in TWO_RANKS:
            threads = 1
            deepspeed = str(Path(sys.executable).parent / "deepspeed")
            launcher = [deepspeed, "--num_accelerators", "2", "--master_port", str(_free_port())]
        done = subprocess.run(
            [*launcher, *asked],
            env=part_environment(os.environ, self.sites, threads),
            capture_output=True,
            text=True,
            check=False,
        )
        if not out.is_file():
            ends = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            raise SystemExit(f"{part} failed ({done.returncode}):\n{ends}")
        figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return figures


def part_environment(environment: Mapping[str, str], sites: Sequence[str], threads: int) -> dict[str, str]:
    """What a part's process gets: this checkout first, then what the caller's PYTHONPATH and --site name."""
    given = [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one]
    paths = [str(ROOT), *given, *(str(Path(site).resolve()) for site in sites)]
    return {
        **environment,
        "OMP_NUM_THREADS": str(threads),
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }


def processor() -> dict[str, Any]:
    """Its name, and which of the instructions it has that int8 matmuls want."""
    from cpuinfo import get_cpu_info

    name = str(get_cpu_info().get("brand_raw", "unknown"))
    found = sorted(cpu_flags() & INT8_INSTRUCTIONS)
    return {"name": name, "cores": len(os.sched_getaffinity(0)), "int8_instructions": found}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
