"""What the machine must have: packages and a compiler."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version

from persianmind.checks.device import has_gpu
from persianmind.common.errors import MachineError
from persianmind.model.compiling import decide_compile, missing_for_compile
from persianmind.model.liger import check_liger

SHOWN_PACKAGES = ("torch", "deepspeed", "transformers", "peft", "bitsandbytes", "ray")


def check_packages() -> str:
    """Holds every installed package against the floors of this package's own metadata (pyproject.toml).

    Returns:
        The versions that matter most.

    Raises:
        MachineError: some are missing or do not fit; all of them are named. Or this package was never
            installed: a checkout alone does not say its floors.
    """
    from packaging.requirements import Requirement

    if _version("persianmind") is None:
        raise MachineError("persianmind itself is not installed here; run `make setup`, or: pip install -e .")
    problems = []
    for text in requires("persianmind") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _version(requirement.name)
        if installed is None:
            problems.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if problems:
        raise MachineError(f"{'; '.join(problems)} (floors of security and correctness); run `make setup`")
    return ", ".join(f"{name} {_version(name)}" for name in SHOWN_PACKAGES)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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


def check_compile(setting: bool | str) -> str:
    """What `train.compile` comes to on this machine, in words.

    Raises:
        MachineError: it is asked for and something that torch.compile needs is missing.
    """
    kind = "cuda" if has_gpu() else "cpu"
    if setting is True and (missing := missing_for_compile(kind)) is not None:
        raise MachineError(
            f"train.compile is true, but {missing} is missing: install it, or give train.compile=auto"
        )
    return decide_compile(setting, kind)[1]


def check_kernels(kernels: str) -> str:
    """What `train.kernels` comes to on this machine, in words.

    Raises:
        MachineError: Liger's are asked for and cannot be used here.
    """
    return check_liger(kernels, "cuda" if has_gpu() else "cpu")


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
