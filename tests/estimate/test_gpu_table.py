"""The table of docs/gpus.md: what stands in a cell, and that only the part between its marks is replaced."""

from __future__ import annotations

import pytest

from benchmarks.gpu_table import BEGIN, END, GPUS, PAGE, RECIPES, cell, table, with_table
from persianmind.estimate.gpus import find_gpu
from persianmind.recipe.loading import known_recipes
from tests.support.shipped import MEANT_FOR

FITS = {"peak_bytes": 20.5e9, "fits": True, "headroom_bytes": 3.25e9, "forecast": {"hours": 30.0}}
LONG = {"peak_bytes": 20.5e9, "fits": True, "headroom_bytes": 3.25e9, "forecast": {"hours": 240.0}}
SHORT = {"peak_bytes": 20.5e9, "fits": False, "headroom_bytes": -12.5e9, "forecast": {"hours": 30.0}}


def test_cells_say_what_is_left_or_missing() -> None:
    assert cell(FITS) == "3.2 GB to spare, 30 h" and cell(LONG).endswith("10 days")
    assert cell(SHORT) == "no: 12.5 GB short"


def test_a_row_is_a_recipe_and_a_column_a_gpu() -> None:
    lines = table({"qwen3-8b": {"RTX 3070": SHORT, "RTX 3090": LONG}}, ["RTX 3070", "RTX 3090"]).splitlines()
    assert lines[0] == "| recipe, number of GPUs | least peak | RTX 3070 | RTX 3090 |"
    assert lines[2].startswith("| `qwen3-8b`, 4 | 20.5 GB | no: 12.5 GB short | 3.2 GB")


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = PAGE.read_text(encoding="utf-8")
    again = with_table(with_table(page, "one"), "two")
    assert f"{BEGIN}\ntwo\n{END}" in again and again.split(BEGIN)[0] == page.split(BEGIN)[0]
    assert again.split(END)[1] == page.split(END)[1]
    with pytest.raises(SystemExit, match="has no lines"):
        with_table("a page", "one")


def test_its_recipes_are_the_shipped_ones_and_its_gpus_known() -> None:
    assert {*RECIPES} == {*known_recipes()} - {"demo", "tiny"}
    assert {name: ranks for name, (_, ranks) in MEANT_FOR.items() if name in RECIPES} == RECIPES
    memory = [find_gpu(name).memory_gb for name in GPUS]
    assert memory == sorted(memory) == [8, 12, 16, 24, 32, 48]
