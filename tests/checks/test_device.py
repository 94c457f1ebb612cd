"""Which precision a run trains in, and what a start and doctor say of the device. GPUs are imitated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from persianmind.checks import device
from persianmind.checks.all import preflight
from persianmind.checks.commands import make_doctor
from persianmind.checks.device import (
    check_device,
    machine_precision,
    resolve_precision,
)
from persianmind.common.device.choice import DeviceChoice
from persianmind.common.errors import MachineError
from persianmind.launch.commands import CPU_RANKS, count_ranks
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.support.gpus import A6000, CUDA_13, RTX_2080, RTX_3090, Machine, decide_imitated
from tests.support.launch import ZERO2

AUTO, BF16 = ["train.precision=auto"], ["train.precision=bf16"]


def imitate(patch: pytest.MonkeyPatch, root: Path, machine: Machine, **environ: str) -> DeviceChoice:
    """Has every check see this machine."""
    found = decide_imitated(patch, root / "imitated", machine, CUDA_13, **environ)
    patch.setattr(device, "current_device", lambda: found)
    return found


def resolved(tmp_path: Path) -> Recipe:
    return resolve_precision(load_recipe("tiny", AUTO), RunFolder(tmp_path / "run"))


@pytest.mark.parametrize(
    ("kinds", "visible", "expected"),
    [
        ([RTX_3090], None, "bf16"),
        ([RTX_3090, A6000], None, "bf16"),
        ([RTX_2080], None, "fp32"),
        ([RTX_3090, RTX_2080], None, "fp32"),  # one GPU that only emulates it would hold up all
        ([RTX_3090, RTX_2080], "0", "bf16"),
    ],
)
def test_imitated_gpus_train_in_bf16_only_where_all_multiply_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kinds: list[tuple[str, int, int]],
    visible: str | None,
    expected: str,
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    imitate(monkeypatch, tmp_path, Machine(kinds), **environ)
    assert machine_precision() == expected
    recipe = resolved(tmp_path)
    assert recipe.train.precision == expected
    line = check_device(recipe)
    assert f", {expected}" in line
    assert ("has compute capability 7.5 and bf16 needs 8.0" in line) is (expected == "fp32")


def test_imitated_gpu_without_bf16_refuses_an_explicit_one_and_names_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitate(monkeypatch, tmp_path, Machine([RTX_2080]))
    with pytest.raises(MachineError, match=r"bf16 needs 8\.0: give train\.precision=fp32"):
        check_device(load_recipe("tiny", BF16))
    assert check_device(load_recipe("tiny", ["train.precision=fp32"]))


def test_imitated_gpus_of_unknown_kind_train_in_fp32_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pynvml

    imitate(monkeypatch, tmp_path, Machine([RTX_3090], init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert "fp32 (bf16 needs capability 8.0, which nobody here can tell)" in check_device(resolved(tmp_path))


def test_imitated_old_driver_stops_a_start_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitate(monkeypatch, tmp_path, Machine([RTX_3090], driver="535.183.01"))
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(MachineError, match=r"driver 535\.183\.01 is too old for torch"):
        preflight(resolved(tmp_path), ZERO2, folder, 2)
    assert not folder.path.exists()


def test_imitated_old_driver_is_one_line_of_doctor(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, outside, Machine([RTX_3090], driver="535.183.01"))
    app = typer.Typer()
    app.command()(make_doctor())
    done = CliRunner().invoke(app, ["tiny", "--deepspeed", str(ZERO2), "--json"], catch_exceptions=False)
    checks = {check["name"]: check for check in json.loads(done.output)["checks"]}
    assert done.exit_code == 1 and checks["device"]["level"] == "fail"
    assert "TORCH_INDEX=https://download.pytorch.org/whl/cu126" in checks["device"]["detail"]
    assert checks["sources"]["level"] == "ok"  # the others are still made


def test_a_cpu_says_why_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, tmp_path, Machine([RTX_3090]), CUDA_VISIBLE_DEVICES="")
    assert check_device(load_recipe("tiny", BF16)) == (
        'CPU (CUDA_VISIBLE_DEVICES="" hides the GPUs of this machine), bf16'
    )


@pytest.mark.parametrize("flags", [{"avx2"}, {"avx2", "avx512_vnni"}])
def test_a_cpu_that_does_not_multiply_int8_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: set[str]
) -> None:
    imitate(monkeypatch, tmp_path, Machine([]))
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    line = check_device(load_recipe("tiny", [*BF16, "train.quantize=int8"]))
    assert ("has no VNNI" in line) is ("avx512_vnni" not in flags)


def test_imitated_gpus_are_all_taken_and_two_cpu_ranks_stand_for_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitate(monkeypatch, tmp_path / "a", Machine([RTX_3090] * 3))
    assert count_ranks(device.current_device().required(), None) == 3
    imitate(monkeypatch, tmp_path / "b", Machine([RTX_3090] * 3), CUDA_VISIBLE_DEVICES="-1")
    assert count_ranks(device.current_device().required(), None) == CPU_RANKS == 2
    imitate(monkeypatch, tmp_path / "c", Machine([RTX_3090], driver="470.1"))
    with pytest.raises(MachineError, match="too old"):
        device.current_device().required()
