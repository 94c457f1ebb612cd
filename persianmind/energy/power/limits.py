"""Reading and setting the power limits of NVIDIA GPUs with nvidia-smi, and putting them back."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.atomic import fsync_folder, read_json, write_json
from persianmind.common.errors import PowerLimitError

FIELDS = "index,power.limit,power.min_limit,power.max_limit"


@dataclass(frozen=True)
class GpuLimit:
    """One GPU: the limit now, and what the card allows, in watts."""

    index: int
    watts: float
    least: float
    most: float


def read_limits() -> list[GpuLimit]:
    """The limits of all GPUs of this machine.

    Raises:
        PowerLimitError: no NVIDIA GPU, no driver, or cards whose limit cannot be read.
    """
    text = _nvidia_smi([f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"])
    limits = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        try:
            index, watts, least, most = int(cells[0]), *map(float, cells[1:])
            limits.append(GpuLimit(index, watts, least, most))
        except (ValueError, TypeError):
            raise PowerLimitError(
                f"nvidia-smi gives no power limit for this GPU ({line.strip()!r})"
            ) from None
    if not limits:
        raise PowerLimitError("nvidia-smi lists no GPU, so there is no power limit to try")
    return limits


def set_limit(index: int, watts: float) -> None:
    """Sets one GPU's limit.

    Raises:
        PowerLimitError: no rights (it needs root), or a value the card refuses.
    """
    _nvidia_smi(["-i", str(index), "-pl", f"{watts:g}"])


def _nvidia_smi(arguments: Sequence[str]) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        raise PowerLimitError(
            "power limits need an NVIDIA GPU and its nvidia-smi, and this machine has none; on a CPU there "
            "is nothing to sweep"
        )
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PowerLimitError(f"nvidia-smi did not answer ({error})") from None
    if done.returncode != 0:
        why = " ".join((done.stdout + " " + done.stderr).split())[:300]
        hint = "; run it as root" if "permission" in why.lower() else ""
        raise PowerLimitError(f"nvidia-smi {' '.join(arguments)} failed: {why or done.returncode}{hint}")
    return done.stdout


@contextmanager
def restored_limits(note: Path) -> Iterator[list[GpuLimit]]:
    """Yields today's limits and puts them back at the end.

    They are first written to `note`, so that after a kill -9 the next call restores them.

    Raises:
        PowerLimitError: the limits cannot be read or put back.
    """
    restore_from(note)
    limits = read_limits()
    write_json(note, [{"index": gpu.index, "watts": gpu.watts} for gpu in limits])
    try:
        yield limits
    finally:
        restore_from(note)


def restore_from(note: Path) -> bool:
    """Puts back what an earlier call that was killed left changed; False when there was nothing to do."""
    if not note.is_file():
        return False
    saved: list[dict[str, Any]] = read_json(note)
    failed = []
    for gpu in saved:
        try:
            set_limit(int(gpu["index"]), float(gpu["watts"]))
        except PowerLimitError as error:
            failed.append(f"GPU {gpu['index']} to {gpu['watts']:g} W ({error})")
    if failed:
        raise PowerLimitError(
            f"power limits could not be put back: {'; '.join(failed)}; do it by hand: {json.dumps(saved)}"
        )
    note.unlink()
    fsync_folder(note.parent)
    return True
