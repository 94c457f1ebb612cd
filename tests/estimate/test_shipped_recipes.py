"""Every shipped recipe is planned on what its header says that it needs, and fits there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from persianmind.estimate.gpus import find_gpu
from persianmind.estimate.plan import estimate_recipe
from persianmind.model.known_bases import known_base
from persianmind.recipe.loading import known_recipes, load_recipe
from tests.support.shipped import MEANT_FOR


def header(path: Path) -> str:
    """The comment above the first key."""
    return path.read_text(encoding="utf-8").split("\nname:")[0]


@pytest.mark.parametrize("name", known_recipes())
def test_it_fits_where_its_header_says_and_has_a_forecast(name: str) -> None:
    gpu, ranks = MEANT_FOR[name]
    found = estimate_recipe(name, [], ranks, gpu=gpu)
    counts, forecast = found.estimate.counts, found.forecast
    assert counts.trained < counts.total and forecast.hours > 0 and forecast.kwh > 0
    text = header(known_recipes()[name])
    assert "forecast:" in text
    if gpu is not None:
        said = re.search(
            r"forecast: (\d+) to (\d+) (hours|days) and (\d+) to (\d+) kWh on (\d) x (.+?)[;\n]", text
        )
        assert said is not None and (int(said[6]), said[7]) == (ranks, gpu)
        unit = {"hours": 1, "days": 24}[said[3]]
        assert [int(said[1]), int(said[2])] == [
            round(one.hours / unit) for one in (forecast.low, forecast.high)
        ]
        assert [int(said[4]), int(said[5])] == [round(one.kwh) for one in (forecast.low, forecast.high)]
        assert found.fits and found.headroom_bytes > 0
        assert found.estimate.peak.allocated < find_gpu(gpu).memory_bytes


@pytest.mark.parametrize(("name", "path"), known_recipes().items())
def test_its_header_says_what_to_download_how_to_start_and_what_it_needs(name: str, path: Path) -> None:
    text, recipe = header(path), load_recipe(name)
    for word in ("download:", "start:", "needs:"):
        assert word in text, word
    assert "launcher/train.py --deepspeed ds_configs/" in text
    base = known_base(recipe.base)
    if base is not None:
        assert recipe.base in text and f"{base.weight_bytes / 1e9:.1f} GB" in text
        assert ("accepted" in text) == base.gated
    gpu, ranks = MEANT_FOR[name]
    if gpu is not None:
        asked = re.search(r"needs:\s+(\d+) GPUs? of (\d+) GB", text)
        assert asked is not None and (int(asked[1]), int(asked[2])) == (ranks, find_gpu(gpu).memory_gb)
    quantised = "zero2_qlora.json" in text
    assert quantised == (recipe.train.quantize == "nf4")
