"""What the machine must have: packages, a compiler, disk room."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from persianmind.checks.device import has_gpu
from persianmind.common.errors import MachineError

SHOWN_PACKAGES = ("torch", "deepspeed", "ray", "transformers")


def check_packages() -> str:
    """Holds every installed package against the floors of this package's own metadata (pyproject.toml).

    Returns:
        The versions that matter most.

    Raises:
        MachineError: one is missing or too old.
    """
    from packaging.requirements import Requirement

    for text in requires("persianmind") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _version(requirement.name)
        if not requirement.specifier.contains(installed, prereleases=True):
            raise MachineError(
                f"{requirement.name} {installed} is not {requirement.specifier} (security and correctness); "
                "run `make setup`"
            )
    return ", ".join(f"{name} {_version(name)}" for name in SHOWN_PACKAGES)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise MachineError(f"{package} is not installed; run `make setup`") from None


def check_trackers(names: Iterable[str]) -> str:
    """Looks for the packages of the trackers without importing them.

    Raises:
        MachineError: one is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MachineError(
                f"train.trackers names {name}, which is not installed: pip install {name}, or take it out of "
                "the list"
            )
    return ", ".join(names) or "none asked for"


def check_compiler() -> str:
    """On a machine without GPUs the engine compiles its communication kernel the first time it runs.

    Raises:
        MachineError: there is no C++ compiler.
    """
    if has_gpu():
        return "not needed: a GPU is here"
    compiler = os.environ.get("CXX") or "g++"
    found = shutil.which(compiler)
    if found is None:
        raise MachineError(
            f"no C++ compiler ({compiler}): DeepSpeed builds its CPU kernel with it; install one, e.g. "
            "`sudo apt-get install g++`"
        )
    return found


def check_disk(folder: Path, needed_bytes: int) -> str:
    """Looks at the file system that `folder` is or will be on.

    Raises:
        MachineError: less than `needed_bytes` are free.
    """
    existing = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise MachineError(
            f"{existing} has {free_bytes / 1e9:.2f} GB free and the run needs at least "
            f"{needed_bytes / 1e9:.2f} GB; free some space or give another --output"
        )
    return f"{free_bytes / 1e9:.1f} GB free"
