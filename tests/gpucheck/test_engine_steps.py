"""How much of the 7B is tried on a GPU, and what happens where that is too much; GPUs are imitated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persianmind.gpucheck import engine_steps
from persianmind.gpucheck.engine_steps import asked_shape, first_shape, on_fitting_shape
from persianmind.gpucheck.fanout import RankFailedError
from persianmind.gpucheck.setting import PartSetting

GB = 10**9


def gpus(monkeypatch: pytest.MonkeyPatch, *free_gb: float) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(free_gb))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (int(free_gb[index] * GB), 0))


@pytest.fixture
def setting(tmp_path: Path) -> PartSetting:
    return PartSetting(small=False, folder=tmp_path, limit_s=60)


@pytest.mark.parametrize(
    ("free_gb", "bf16_layers", "nf4_layers"), [((23.5,), 32, 32), ((11.5,), 16, 32), ((23.5, 7.5), 9, 23)]
)
def test_layers_are_those_that_the_smallest_gpu_takes_imitated(
    setting: PartSetting,
    monkeypatch: pytest.MonkeyPatch,
    free_gb: tuple[float, ...],
    bf16_layers: int,
    nf4_layers: int,
) -> None:
    gpus(monkeypatch, *free_gb)
    assert abs(first_shape(setting, "none").layers - bf16_layers) <= 4
    assert abs(first_shape(setting, "nf4").layers - nf4_layers) <= 8


def test_out_of_memory_halves_the_layers_imitated(
    setting: PartSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 23.5)
    tried: list[int] = []

    def run(function: str, setting: PartSetting, count: int, *, label: str, options: dict[str, Any]) -> Any:
        layers = options["shape"]["layers"]
        tried.append(layers)
        if layers > 8:
            raise RankFailedError("rank 0: OutOfMemoryError: CUDA out of memory")
        return [{"layers": asked_shape(PartSetting(False, setting.folder, 1, options)).layers}]

    monkeypatch.setattr(engine_steps, "run_on_ranks", run)
    shape, found = on_fitting_shape("module:name", setting, "none", label="bf16", options={}, count=1)
    assert tried == [32, 16, 8] and shape.layers == 8 and found == [{"layers": 8}]


def test_another_error_is_not_tried_again_imitated(
    setting: PartSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 23.5)

    def run(*arguments: Any, **options: Any) -> Any:
        raise RankFailedError("rank 0: RuntimeError: no kernel image")

    monkeypatch.setattr(engine_steps, "run_on_ranks", run)
    with pytest.raises(RankFailedError, match="no kernel image"):
        on_fitting_shape("module:name", setting, "none", label="bf16", options={}, count=1)
