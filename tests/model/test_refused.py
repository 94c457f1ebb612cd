"""Bases that cannot be trained right are refused by name, from config.json alone, wherever one can ask."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from persianmind.checks.all import preflight
from persianmind.common.errors import BaseModelError
from persianmind.estimate.plan import estimate_recipe
from persianmind.model import families
from persianmind.model.adapted import load_base
from persianmind.model.bases import check_base
from persianmind.model.families import FAMILIES, REFUSED, check_family
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.model.family_cases import make_family_base
from tests.model.helpers import make_recipe
from tests.support.launch import ROOT, ZERO2

WHY = {
    "t5": "encoder-decoder",
    "mamba": "recurrent or linear-attention",
    "falcon_h1": "recurrent or linear-attention",
    "lfm2": "recurrent or linear-attention",
    "qwen3_next": "recurrent or linear-attention",
    "gemma3": "multimodal",
    "gemma4": "multimodal",
    "mistral3": "multimodal",
    "qwen3_vl": "multimodal",
    "falcon": "attention by itself",
    "bloom": "attention by itself",
    "gptj": "attention by itself",
    "gpt2": "transposed",
    "gpt_oss": "attention sinks",
    "codegen": "not one that was tried here",
    "whisper": "encoder-decoder",
    "pixtral": "not one that was tried here",
}


def written(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", WHY)
def test_by_the_config_that_transformers_writes(tmp_path: Path, name: str) -> None:
    config = AutoConfig.for_model(name)
    config.save_pretrained(tmp_path)
    tree = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    with pytest.raises(
        BaseModelError, match=rf"\({name}\) .*{WHY[name]}.*supported are llama, .* others, see docs/bases.md$"
    ):
        check_family(tree, "some/base")


@pytest.mark.parametrize("name", FAMILIES)
def test_control_every_supported_family_passes_with_its_default_config(tmp_path: Path, name: str) -> None:
    AutoConfig.for_model(name).save_pretrained(tmp_path)
    assert (
        check_family(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")), "x")
        is FAMILIES[name]
    )


def test_no_family_is_both_supported_and_refused() -> None:
    assert not FAMILIES.keys() & REFUSED.keys()
    assert {*families._WELL_KNOWN} < FAMILIES.keys()


def test_the_page_lists_what_the_table_lists() -> None:
    supported, _, refused = (ROOT / "docs" / "bases.md").read_text(encoding="utf-8").partition("## Refused")
    assert _first_column(supported) == FAMILIES.keys()
    assert _first_column(refused) >= REFUSED.keys()


def _first_column(text: str) -> set[str]:
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")][2:]
    return {one for row in rows for one in re.findall(r"[a-z]\w*", row)}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"model_type": "llama", "logit_scale": 0.5}, r"has no logit_scale that training knows of.* 0\.5"),
        ({"model_type": "qwen2", "final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"model_type": "llama", "embedding_multiplier": 12.0}, "embedding_multiplier"),
        ({"model_type": "llama", "layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "quantised already"),
        ({"model_type": "llama", "vision_config": {}}, "multimodal"),
        ({}, "without a model_type"),
    ],
)
def test_what_else_would_change_the_loss(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(BaseModelError, match=why):
        check_family(changed, "x")


def test_keys_that_change_nothing_are_let_through() -> None:
    tree = {"model_type": "llama", "logit_scale": 1.0, "final_logit_softcapping": None, "warmup_steps": 5}
    check_family({**tree, "output_router_logits": True, "layer_types": ["full_attention"]}, "x")
    check_family({"model_type": "granite", "logits_scaling": 8.0, "embedding_multiplier": 12.0}, "x")


def test_four_bits_are_refused_for_experts_alone() -> None:
    check_family({"model_type": "mixtral"}, "x")
    check_family({"model_type": "llama"}, "x", "nf4")
    with pytest.raises(BaseModelError, match=r"mixture of experts.*give train\.quantize=none"):
        check_family({"model_type": "mixtral"}, "x", "nf4")


def test_preflight_doctor_and_plan_all_say_it_and_nothing_is_written(tmp_path: Path) -> None:
    base = written(tmp_path / "t5", {"model_type": "t5", "is_encoder_decoder": True})
    change = f"base={base}"
    with pytest.raises(BaseModelError, match="encoder-decoder"):
        preflight(load_recipe("tiny", [change]), ZERO2, RunFolder(tmp_path / "run"), 2)
    with pytest.raises(BaseModelError, match="encoder-decoder"):
        estimate_recipe("tiny", [change], 2)
    experts = written(tmp_path / "experts", {"model_type": "mixtral"})
    with pytest.raises(BaseModelError, match="mixture of experts"):
        preflight(
            load_recipe("tiny", [f"base={experts}", "train.quantize=nf4"]),
            ZERO2,
            RunFolder(tmp_path / "run"),
            2,
        )
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_no_object_is_one_line(tmp_path: Path) -> None:
    folder = written(tmp_path / "base", {})
    for text in ("[1]", "{"):
        (folder / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(BaseModelError, match="no JSON object"):
            check_base(str(folder))


def test_a_base_with_missing_weights_is_refused(tmp_path: Path) -> None:
    """transformers itself makes them up and says so in a table that nobody reads."""
    base = make_family_base(tmp_path / "base", "llama-tied")
    load_base(base, make_recipe())  # control: a tied head lies in no file, and is not missing
    file = base / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        BaseModelError, match=r"lack 2 weights of a LlamaForCausalLM.* model.layers.1.mlp.up_proj"
    ):
        load_base(base, make_recipe())
