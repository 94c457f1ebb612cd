"""DeepSpeed's CPU communication kernel, built once a machine and safe to interrupt.

torch marks a build in progress with an empty file `lock` and waits for it without end; a process that is
killed while building leaves the file, and every later run hangs. We build under a lock of the kernel
(flock), which dies with its holder: whoever has it knows that a leftover file belongs to nobody.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from filelock import FileLock

from persianmind.common.checksum import hash_text
from persianmind.common.errors import MachineError
from persianmind.model.made_bases import cache_folder

STALE = "lock"


def extensions_folder() -> Path:
    """Where kernels of this project are built: $TORCH_EXTENSIONS_DIR, or a folder of our own, so that no
    other program's build can be the one in progress.

    One folder an installed DeepSpeed: torch builds again whenever the sources lie at another path, so two
    clones with environments of their own would rebuild in turns, under each other's running processes.
    """
    if given := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(given)
    found = importlib.util.find_spec("deepspeed")
    place = str(found.origin) if found is not None else ""
    return cache_folder() / "torch_extensions" / hash_text(place)[:12]


def load_cpu_kernel() -> None:
    """Builds or loads the kernel; DeepSpeed finds it loaded afterwards. Does nothing where there is a GPU.

    Raises:
        MachineError: the compiler failed.
    """
    from deepspeed.accelerator import get_accelerator

    if get_accelerator().device_name() != "cpu":
        return
    folder = extensions_folder()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    with FileLock(folder / ".persianmind.flock"):
        for leftover in folder.rglob(STALE):
            leftover.unlink(missing_ok=True)
        try:
            builder.load(verbose=False)
        except (RuntimeError, OSError, ImportError) as error:
            reason = next((line for line in str(error).splitlines() if "error" in line.lower()), str(error))
            raise MachineError(
                f"DeepSpeed's CPU kernel could not be built ({' '.join(reason.split())[:200]}); install a "
                "working g++ with its headers (build-essential)"
            ) from None
