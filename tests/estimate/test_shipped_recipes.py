"""Every shipped recipe is planned on what its header says that it needs, and fits there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from persianmind.cli import app
from persianmind.estimate.gpus import find_gpu
from persianmind.model.known_bases import known_base
from persianmind.recipe.loading import known_recipes, load_recipe
from tests.support.shipped import MEANT_FOR


def header(path: Path) -> str:
    """The comment above the first key."""
    return path.read_text(encoding="utf-8").split("\nname:")[0]


def plan(name: str) -> dict[str, Any]:
    gpu, ranks = MEANT_FOR[name]
    where = [] if gpu is None else ["--gpu", gpu]
    done = CliRunner().invoke(
        app, ["plan", name, "--ranks", str(ranks), *where, "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    return found


@pytest.mark.parametrize("name", known_recipes())
def test_it_fits_where_its_header_says_and_has_a_forecast(name: str) -> None:
    found = plan(name)
    assert found["parameters"]["trained"] < found["parameters"]["total"]
    assert found["forecast"]["hours"] > 0 and found["forecast"]["kwh"] > 0
    gpu, _ = MEANT_FOR[name]
    if gpu is not None:
        assert found["fits"] is True and found["headroom_bytes"] > 0
        assert found["peak_bytes"] < find_gpu(gpu).memory_bytes


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
