"""The fake NVML module has the names, parameters and constants of the installed nvidia-ml-py."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pynvml as real

from tests.energy.ledgers import FAKE_NVML


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_pynvml", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAKE = load(FAKE_NVML / "pynvml.py")


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


def test_every_function_is_a_real_one_with_the_same_parameters() -> None:
    names = [name for name in vars(FAKE) if name.startswith("nvml") and callable(getattr(FAKE, name))]
    assert len(names) >= 24
    for name in names:
        theirs = parameters(getattr(real, name))
        assert parameters(getattr(FAKE, name)) == theirs[: len(parameters(getattr(FAKE, name)))], name


def test_every_constant_and_error_is_a_real_one() -> None:
    numbers = [name for name in vars(FAKE) if name.startswith(("NVML_", "nvmlClocks", "nvmlEventType"))]
    assert len(numbers) >= 5
    assert all(getattr(FAKE, name) == getattr(real, name) for name in numbers)
    errors = [name for name in vars(FAKE) if name.startswith("NVMLError")]
    assert len(errors) >= 7 and all(issubclass(getattr(real, name), real.NVMLError) for name in errors)


def test_the_bits_of_our_table_are_those_of_the_real_module() -> None:
    from persianmind.energy.meter.meanings import THROTTLE_REASONS

    theirs = {
        value
        for name, value in vars(real).items()
        if name.startswith("nvmlClocksThrottleReason") and not name.endswith(("All", "None", "GpuIdle"))
    }
    assert theirs == set(THROTTLE_REASONS)
