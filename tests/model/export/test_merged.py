"""The merged weights against the trained model, transformers and peft's own merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from persianmind.common.errors import BaseModelError
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.export.config import SpecialIds, export_config
from persianmind.model.export.merged import MergedTensors
from persianmind.model.export.trained import TrainedWeights
from persianmind.model.export.writer import write_weights
from persianmind.recipe import Recipe
from tests.model.helpers import (
    ARCHITECTURES,
    BASE_VOCAB,
    PIECES,
    logits_of,
    make_base,
    make_recipe,
    packed_batch,
    perturbed,
)

VOCAB = BASE_VOCAB + len(PIECES)
IDS = SpecialIds(bos=1, eos=2, pad=None, stop=[2])


def trained(base: Path, recipe: Recipe) -> AdaptedModel:
    return perturbed(build_adapted(base, recipe, PIECES, BASE_VOCAB)).eval()


def export(out: Path, base: Path, model: AdaptedModel, recipe: Recipe, **options: Any) -> Any:
    """The exported folder as transformers alone loads it."""
    options = {"dtype": torch.float32, **options}
    max_shard_bytes = options.pop("max_shard_bytes", 1 << 30)
    tensors = MergedTensors(base, TrainedWeights.of(model, recipe.adapter), **options)
    out.mkdir()
    write_weights(out, tensors, options["dtype"], max_shard_bytes)
    config = export_config(base, vocab_size=tensors.vocab_size, dtype="float32", ids=IDS)
    AutoConfig.for_model(**{"model_type": config["model_type"], **config}).save_pretrained(out)
    model_, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model_.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("architecture", "extra"),
    [
        *((architecture, {}) for architecture in (*ARCHITECTURES, "gpt_neox", "mixtral")),
        ("llama", {"dora": True}),
        ("llama", {"rslora": True}),
    ],
)
def test_logits_equal_the_trained_ones(
    tmp_path: Path, architecture: str, tied: bool, extra: dict[str, bool]
) -> None:
    base = make_base(tmp_path / "base", architecture, tied=tied)
    recipe = make_recipe(adapter=extra)
    model = trained(base, recipe)
    exported = export(tmp_path / "out", base, model, recipe)
    ids = packed_batch(vocab=VOCAB)["input_ids"]
    with torch.no_grad():
        ours, theirs = logits_of(model, ids), exported(input_ids=ids).logits
    assert exported.config.vocab_size == VOCAB
    assert (exported.get_input_embeddings().weight is exported.get_output_embeddings().weight) == tied
    assert torch.allclose(ours, theirs, atol=2e-5 * float(ours.abs().max()))


@pytest.mark.parametrize("scale", [0.0, 0.6])
@pytest.mark.parametrize("dora", [False, True])
def test_adapter_scale_is_a_factor_on_the_delta(tmp_path: Path, scale: float, dora: bool) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    recipe = make_recipe(adapter={"dora": dora})
    model = trained(base, recipe)
    exported = export(tmp_path / "out", base, model, recipe, adapter_scale=scale)
    ids = packed_batch(vocab=VOCAB)["input_ids"]
    for module in model.causal_lm.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", scale)  # peft's own
    with torch.no_grad():
        ours, theirs = logits_of(model, ids), exported(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=2e-5 * float(ours.abs().max()))


@pytest.mark.parametrize("tied", [True, False])
def test_padding_changes_no_id_and_no_logit(tmp_path: Path, tied: bool) -> None:
    base = make_base(tmp_path / "base", "llama", tied=tied)
    model = trained(base, make_recipe())
    exported = export(tmp_path / "out", base, model, make_recipe(), pad_vocab_to_multiple=64)
    assert exported.config.vocab_size == -(-VOCAB // 64) * 64 > VOCAB
    ids = packed_batch(vocab=VOCAB)["input_ids"]
    with torch.no_grad():
        ours, theirs = logits_of(model, ids), exported(input_ids=ids).logits
    assert torch.allclose(ours, theirs[..., :VOCAB], atol=2e-5 * float(ours.abs().max()))
    assert int(theirs.argmax(-1).max()) < VOCAB


def test_padding_of_the_base_is_replaced_by_new_embeddings(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen2", tied=True, padding=32)
    model = trained(base, make_recipe())
    exported = export(tmp_path / "out", base, model, make_recipe())
    table = exported.get_input_embeddings().weight
    assert table.shape[0] == VOCAB and torch.equal(table[BASE_VOCAB:], model.input_table.new_AD)


def test_all_embeddings_trained(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    recipe = make_recipe(vocab={"train_embeddings": "all"})
    model = trained(base, recipe)
    exported = export(tmp_path / "out", base, model, recipe)
    ids = packed_batch(vocab=VOCAB)["input_ids"]
    with torch.no_grad():
        ours, theirs = logits_of(model, ids), exported(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=2e-5 * float(ours.abs().max()))


def test_a_bias_of_the_head_is_kept(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "phi", tied=False)
    bias = AutoModelForCausalLM.from_pretrained(base).lm_head.bias
    with torch.no_grad():
        bias += torch.arange(BASE_VOCAB)
    whole = AutoModelForCausalLM.from_pretrained(base)
    whole.lm_head.bias = bias
    whole.save_pretrained(base)
    model = trained(base, make_recipe())
    exported = export(tmp_path / "out", base, model, make_recipe(), pad_vocab_to_multiple=8)
    assert torch.equal(exported.lm_head.bias[:BASE_VOCAB], bias)
    assert len(exported.lm_head.bias) == 104
    assert torch.equal(exported.lm_head.bias[BASE_VOCAB:], bias.mean().expand(8))


def test_shards_and_their_index(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    model = trained(base, make_recipe())
    whole = export(tmp_path / "one", base, model, make_recipe())
    parts = export(tmp_path / "many", base, model, make_recipe(), max_shard_bytes=40_000)
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert len(files) == 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    state = parts.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "many").glob("model*")}
    assert modes == {0o644}  # others on the machine serve it


def test_a_trained_weight_in_another_form_on_disk_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tied=False)
    model = trained(base, make_recipe())
    weights = TrainedWeights.of(model, make_recipe().adapter)
    other = make_base(
        tmp_path / "other", "phi3", tied=False, pad_token_id=0
    )  # its query, key and value are one weight
    with pytest.raises(BaseModelError, match="hold it in another form"):
        MergedTensors(other, weights, dtype=torch.float32)
