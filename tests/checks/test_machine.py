"""What the machine must have."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from persianmind.checks import device, machine
from persianmind.checks.device import cpu_flags, machine_precision, resolve_precision
from persianmind.checks.machine import check_compile, check_compiler, check_packages, check_trackers
from persianmind.common.device.choice import DeviceChoice
from persianmind.common.errors import MachineError
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    with pytest.raises(MachineError, match="apt-get install g"):
        check_compiler()
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    assert "not needed" in check_compiler()


def test_compile_without_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """auto goes without and says it; true is refused."""
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    assert "slow" in check_compile(True)
    assert check_compile("auto").startswith("compile: off, where it does not pay")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"a compiler \(g\+\+\) is missing.*train\.compile=auto"):
        check_compile(True)
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    missing = "the package triton" if importlib.util.find_spec("triton") is None else "a compiler (gcc)"
    assert check_compile("auto") == f"compile: off, {missing} is missing (train.compile: auto)"
    assert check_compile(False) == "compile: off"


def test_a_tracker_that_is_not_installed_is_named() -> None:
    assert check_trackers([]) == "none asked for"
    with pytest.raises(MachineError, match=r"no_such_tracker.*pip install no_such_tracker"):
        check_trackers(["no_such_tracker"])


def test_packages_are_held_against_the_projects_own_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_packages().startswith("torch ")
    versions = {"torch": "2.10.0", "ray": "2.40"}
    monkeypatch.setattr(
        machine, "requires", lambda name: ["ray>=2.52", 'gone>=1; extra == "demo"', "torch>=2.11"]
    )
    monkeypatch.setattr(machine, "version", (versions | {"persianmind": "0.1.0"}).__getitem__)
    with pytest.raises(MachineError, match=r"ray 2\.40 is not >=2\.52; torch 2\.10\.0 is not >=2\.11"):
        check_packages()


def test_a_checkout_that_was_never_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(machine, "version", version)
    with pytest.raises(MachineError, match=r"persianmind itself is not installed here.*pip install -e \."):
        check_packages()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "requires", lambda name: ["persianmind-of-nowhere>=1"])
    with pytest.raises(MachineError, match="persianmind-of-nowhere is not installed"):
        check_packages()


@pytest.mark.parametrize(
    ("flags", "expected"), [("avx2 amx_bf16", "bf16"), ("fma avx512_bf16", "bf16"), ("fma avx2", "fp32")]
)
def test_precision_is_what_the_processor_multiplies(
    flags: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "current_device", lambda: DeviceChoice("cpu", "as a test says"))
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags.split()))
    assert machine_precision() == expected


def test_the_processors_flags_are_the_systems_own() -> None:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        pytest.skip("Linux alone lists them in a file")
    listed = set(path.read_text(encoding="ascii", errors="replace").split())
    assert cpu_flags() and cpu_flags() & device.BF16_FLAGS == listed & device.BF16_FLAGS


def test_precision_stays_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("tiny", ["train.precision=auto"])
    folder = RunFolder(tmp_path / "run")
    folder.claim(load_recipe("tiny", ["train.precision=bf16"]))
    monkeypatch.setattr(device, "machine_precision", lambda: "fp32")
    assert resolve_precision(recipe, folder).train.precision == "bf16"
    assert resolve_precision(recipe, RunFolder(tmp_path / "new")).train.precision == "fp32"
