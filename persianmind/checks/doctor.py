"""Every check of `preflight`, each on its own, so that one look shows all that is missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from persianmind.checks.device import resolve_precision
from persianmind.checks.preflight import check_compiler, check_disk_room, has_gpu, needed_bytes
from persianmind.common.errors import MachineError, PersianMindError
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.model.bases import check_base
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import check_run_folder
from persianmind.text.stream import check_sources

FLOORS = {"torch": "2.10", "deepspeed": "0.19.4", "ray": "2.52", "transformers": "5.20"}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `detail` is a fact when ok, else the line with the fix."""

    name: str
    ok: bool
    detail: str

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def examine(name: str, overrides: Sequence[str], deepspeed_json: Path, world_size: int) -> list[Check]:
    """Runs every check for a recipe on this machine; none stops the others."""
    recipe = load_recipe(name, overrides)
    run = Path("runs") / recipe.name
    recipe = resolve_precision(recipe, run)

    def disk() -> str:
        check_disk_room(run, needed_bytes(recipe))
        return f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB free"

    def compiler() -> str:
        check_compiler()
        return "not needed: a GPU is here" if has_gpu() else str(shutil.which(os.environ.get("CXX") or "g++"))

    def batch() -> str:
        resolve_deepspeed_config(deepspeed_json, recipe, world_size)
        return f"{deepspeed_json} fits the recipe on {world_size} ranks"

    def base_model() -> str:
        check_base(recipe.base)
        return recipe.base

    def sources() -> str:
        check_sources(recipe.sources)
        return ", ".join(recipe.sources)

    def run_folder() -> str:
        check_run_folder(run, recipe)
        return str(run)

    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", lambda: sys.version.split()[0]),
        ("packages", _packages),
        ("compiler", compiler),
        ("device", lambda: f"{'NVIDIA GPU' if has_gpu() else 'CPU'}, {recipe.train.precision}"),
        ("deepspeed json", batch),
        ("base model", base_model),
        ("sources", sources),
        ("run folder", run_folder),
        ("disk", disk),
    ]
    return [_run(name, action) for name, action in checks]


def _run(name: str, action: Callable[[], str]) -> Check:
    try:
        return Check(name, True, action())
    except PersianMindError as error:
        return Check(name, False, " ".join(str(error).split()))


def _packages() -> str:
    from packaging.version import Version

    found = []
    for package, floor in FLOORS.items():
        try:
            installed = version(package)
        except PackageNotFoundError:
            raise MachineError(f"{package} is not installed; run `make setup`") from None
        if Version(installed) < Version(floor):
            raise MachineError(f"{package} {installed} is older than {floor} (security and correctness)")
        found.append(f"{package} {installed}")
    return ", ".join(found)
