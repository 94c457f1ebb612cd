"""A run of four steps through the real launcher for a base of each class that docs/bases.md has, beside the
plain ones of the other tests here: two ranks, all stages, the export in plain transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from persianmind.model.bases import RANDOM_VOCAB, resolve_base
from tests.model.family_cases import make_family_base
from tests.support.launch import launch

pytestmark = [pytest.mark.more, pytest.mark.integration]
CLASSES = {
    "scaled embedding and soft-caps": "gemma2",
    "bias of the logits": "phi",
    "factor on the logits": "cohere2",
    "divided logits, mixture of experts": "granitemoe",
    "mixture of experts": "qwen2_moe",
    "documents handed on by hooks": "stablelm",
}
FOUR_STEPS = ["stages.0.tokens=2048", "stages.1.tokens=1024", "stages.2.tokens=1024"]


def make_base(folder: Path, family: str) -> Path:
    """A random base of the family, with the small English tokenizer of random://llama."""
    make_family_base(folder, family, vocab_size=RANDOM_VOCAB, max_position_embeddings=512)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(resolve_base("random://llama") / name, folder / name)
    return folder


@pytest.mark.parametrize("family", CLASSES.values(), ids=CLASSES)
def test_four_steps_through_the_launcher(tmp_path: Path, family: str) -> None:
    base = make_base(tmp_path / "base", family)
    done = launch("--recipe", "tiny", "--output", str(tmp_path / "run"), f"base={base}", *FOUR_STEPS)
    assert done.code == 0, done.text
    assert [line["step"] for line in done.metrics] == [1, 2, 3, 4]
    assert "self-test: loss and gradients are those of the base's own forward" in done.text
    assert done.results["export"]["relative_loss_difference"] < 1e-4
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "export")
    assert model.config.model_type == family
    text = "دل می‌رود ز دستم صاحب‌دلان خدا را"
    ids = AutoTokenizer.from_pretrained(tmp_path / "run" / "export")(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits_V = model(ids).logits[0, -1]
    assert int(ids.max()) >= RANDOM_VOCAB and logits_V.shape == (RANDOM_VOCAB + 400,)
    assert logits_V.isfinite().all()
