"""Speeds of earlier runs: found by device and size, converted to FLOP/s by hand."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from persianmind.common.checksum import dump_checked_line
from persianmind.estimate.gpus import find_gpu
from persianmind.estimate.measured import MeasuredRun, find_measured
from persianmind.recipe.loading import load_recipe
from persianmind.run.energy_records import EnergyReading
from persianmind.run.folder import RunFolder
from persianmind.run.log import update_results
from persianmind.run.records import ModelSize
from tests.energy.ledgers import sample, start, write
from tests.report.built_run import step_record, write_lines

RECIPE = load_recipe("demo", ["train.precision=bf16"])  # every third layer recomputed
WEIGHTS, TRAINED = 138_685_248, 4_170_240
NODE = platform.node()


def make_run(
    runs: Path, name: str = "demo", *, gpu: str | None = None, node: str = NODE, mfu: float | None = None
) -> RunFolder:
    """A finished run of two steps with much else, then eight at 140 tokens/s; 100 s beside them."""
    folder = RunFolder(runs / name)
    folder.claim(RECIPE.model_copy(update={"name": name}))
    steps = [step_record("pretrain", number) for number in range(1, 11)]
    speeds = [1.0, *[140.0] * 9]
    changed = [
        one.model_copy(update={"tokens_per_s": speed, "seconds": 7.0, "mfu": mfu})
        for one, speed in zip(steps, speeds, strict=True)
    ]
    write_lines(folder.metrics, changed)
    size = ModelSize(parameters=WEIGHTS, trained_parameters=TRAINED, base_vocab=49_152, added_vocab=3000)
    update_results(folder, model=size, finished=True)
    training = sample("a", node, "pretrain", (0, 10), {"cpu": 1890.0}, seconds=70.0)
    if gpu is not None:
        reading = EnergyReading(component="gpu0", joules=1.0, kind="measured", source=f"NVML counter ({gpu})")
        training = training.model_copy(update={"readings": [reading]})
    other = [sample("a", node, label, (0, 0), {"cpu": 5.0}, seconds=50.0) for label in ("start", "export")]
    write(folder.path, node, [start("a", node), other[0], training, other[1]])
    return folder


def found(
    runs: Path, gpu: str | None = None, name: str = "demo", weights: int = WEIGHTS
) -> MeasuredRun | None:
    recipe = RECIPE.model_copy(update={"name": name})
    return find_measured(runs, None if gpu is None else find_gpu(gpu), recipe, weights, layers=30)


def test_a_cpu_s_speed_is_that_of_all_its_ranks(tmp_path: Path) -> None:
    make_run(tmp_path)
    one = found(tmp_path)
    assert one is not None
    # Forward, backward, and a third of the layers forward again: 2 FLOP per weight each.
    assert one.flops_per_s == pytest.approx(140.0 * (2 * (2 + 1 / 3) * WEIGHTS + 2 * TRAINED))
    assert one.beside_s == 100.0 and one.watts == pytest.approx(1890 / (9 * 7.0))


def test_a_gpu_s_speed_is_its_mfu_with_recomputation(tmp_path: Path) -> None:
    make_run(tmp_path, gpu="NVIDIA GeForce RTX 3090", mfu=0.3)
    one = found(tmp_path, "RTX 3090")
    assert one is not None
    assert one.flops_per_s == pytest.approx(0.3 * 71e12 * (2 + 1 / 3) / 2, rel=0.01)
    assert found(tmp_path, "RTX 3090 Ti") is None and found(tmp_path) is None


def test_another_machine_s_cpu_is_not_this_one_s(tmp_path: Path) -> None:
    make_run(tmp_path, node="elsewhere")
    assert found(tmp_path) is None


def test_the_same_recipe_comes_first_and_sizes_must_be_alike(tmp_path: Path) -> None:
    make_run(tmp_path, "other")
    only = found(tmp_path, weights=2 * WEIGHTS)
    assert only is not None and only.recipe == "other"
    assert found(tmp_path, weights=5 * WEIGHTS) is None
    make_run(tmp_path, "demo")
    first = found(tmp_path)
    assert first is not None and first.recipe == "demo"


def test_an_int8_base_is_no_measure_of_another(tmp_path: Path) -> None:
    make_run(tmp_path)
    int8 = RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"quantize": "int8"})})
    assert found(tmp_path) is not None
    assert find_measured(tmp_path, None, int8, WEIGHTS, layers=30) is None


def test_few_steps_and_damaged_folders_measure_nothing(tmp_path: Path) -> None:
    assert found(tmp_path) is None
    folder = make_run(tmp_path)
    write_lines(folder.metrics, [step_record("pretrain", number) for number in range(1, 5)])
    assert found(tmp_path) is None
    make_run(tmp_path)
    folder.results.write_text(dump_checked_line({"finished": 3}) + "x", encoding="utf-8")
    assert found(tmp_path) is None
