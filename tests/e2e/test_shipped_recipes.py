"""Every shipped recipe through the launcher to an export that plain transformers loads, over a tiny random
base of its own class; `demo` and `tiny` have tests of their own (test_readme, test_tiny)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from persianmind.model.known_bases import known_config
from persianmind.recipe.loading import known_recipes, load_recipe
from tests.support.launch import ROOT, launch
from tests.support.shipped import MEANT_FOR, make_small_base

pytestmark = [pytest.mark.more, pytest.mark.integration]
TEXT = {
    "persian": "hafez",
    "english": "python-topics",
    "translated": "gettext-instruct",
    "instruct": "hafez-instruct",
}
SMALL = [
    "data.seq_len=256", "data.sequences_per_shard=512", "data.mixture_window=20", "heldout.ratio=0.03",
    "heldout.max_characters=6000", "train.precision=fp32", "train.global_batch_size=4",
    *(f"sources.{name}.uri=package://{package}" for name, package in TEXT.items()),
    *(f"stages.{number}.epochs=null" for number in range(3)),
    "stages.0.tokens=2048", "stages.1.tokens=1024", "stages.2.tokens=1024",
]  # fmt: skip
# One of each kind of base and of 16 and 4 bits; `make faults` takes the others as well.
SHORT = {"persianmind-7b", "llama-3.1-8b-nf4-1x24", "gemma-3-1b"}
NAMES = [
    pytest.param(name, marks=[] if name in SHORT else [pytest.mark.long])
    for name in known_recipes()
    if name not in {"demo", "tiny"}
]


def test_every_shipped_recipe_is_covered() -> None:
    assert sorted(MEANT_FOR) == sorted(known_recipes())


@pytest.mark.parametrize("name", NAMES)
def test_from_nothing_to_an_export_that_loads(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(name)
    size = "vocab.new_tokens=300" if recipe.vocab.train_size is None else "vocab.train_size=500"
    engine = "zero2.json" if recipe.train.quantize == "none" else "zero2_qlora.json"
    base = make_small_base(tmp_path / "base", recipe.base)
    done = launch(
        "--deepspeed", str(ROOT / "ds_configs" / engine), "--recipe", name, "--output", str(tmp_path / "run"),
        f"base={base}", size, *SMALL, ranks=2,
    )  # fmt: skip
    assert done.code == 0, done.text
    assert [line["step"] for line in done.metrics] == [1, 2, 3, 4]
    assert done.stages == ["base", "pretrain", "instruct-1", "instruct-2"] and done.results["finished"]
    assert done.results["export"]["relative_loss_difference"] < 0.02  # written in bf16
    export = tmp_path / "run" / "export"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(export), AutoTokenizer.from_pretrained(export)
    config = known_config(recipe.base)
    assert config is not None and model.config.model_type == config["model_type"]
    ids = tokenizer("دل می‌رود ز دستم صاحب‌دلان خدا را", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits_V = model(ids).logits[0, -1]
    assert int(ids.max()) >= len(tokenizer) - 500 and len(tokenizer) <= len(logits_V)  # new ones
    assert logits_V.isfinite().all()
