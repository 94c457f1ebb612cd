"""What the installed torch was built for, read from its files: importing torch takes seconds.

Sources: the minimum drivers of CUDA's minor-version compatibility (NVIDIA's CUDA compatibility guide), the
architectures of CUDA 13 (7.5 and up) and of CUDA 12.8 (the first with 10.0 and 12.0).
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path

# CUDA's major version -> the oldest driver of Linux that runs it.
LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
# (index, oldest driver), newest first; what TORCH_INDEX of `make setup` takes.
INDEXES = (("https://download.pytorch.org/whl/cu130", 580), ("https://download.pytorch.org/whl/cu126", 525))
BLACKWELL, ITS_CUDA = (10, 0), (12, 8)


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """version: "2.13.0+cu126". cuda: (12, 6), None in builds for the CPU or for AMD. is_rocm: for AMD."""

    version: str
    cuda: tuple[int, int] | None
    is_rocm: bool = False

    @property
    def target(self) -> str:
        """In words, where it is not CUDA."""
        return "AMD GPUs (ROCm)" if self.is_rocm else "the CPU alone"

    @property
    def least_driver(self) -> int | None:
        """Major version of the oldest driver it runs on; None where CUDA is a version not known here."""
        return LEAST_DRIVER.get(self.cuda[0]) if self.cuda is not None else None

    def lacks(self, capability: tuple[int, int]) -> bool:
        """Whether a GPU is newer than the build's CUDA."""
        return self.cuda is not None and capability >= BLACKWELL and self.cuda < ITS_CUDA


def usable_index(driver: str | None) -> str | None:
    """The newest index whose torch runs on this driver; None: none does. An unknown driver counts as new."""
    major = driver_major(driver) if driver is not None else INDEXES[0][1]
    return next((index for index, least in INDEXES if major >= least), None)


def driver_major(driver: str) -> int:
    """580 of "580.65.06"."""
    return int(driver.split(".")[0])


def read_torch_build() -> TorchBuild | None:
    """Reads torch/version.py without running it; None where torch is not installed or has no such file."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        return parse_torch_version((Path(found.origin).parent / "version.py").read_text(encoding="utf-8"))
    except OSError:
        return None


def parse_torch_version(text: str) -> TorchBuild | None:
    """From the text of torch/version.py, whose values are plain assignments; None where they are not."""
    values: dict[str, object] = {}
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                values[target.id] = value.value
    if not isinstance(version := values.get("__version__"), str) or "cuda" not in values:
        return None
    cuda = values["cuda"]
    numbers = tuple(int(part) for part in cuda.split(".")[:2]) if isinstance(cuda, str) else None
    return TorchBuild(
        version,
        (numbers[0], numbers[1]) if numbers is not None and len(numbers) == 2 else None,
        is_rocm=bool(values.get("hip") or values.get("rocm")),
    )
