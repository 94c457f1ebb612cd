"""What llama.cpp would compute or tokenise otherwise is refused before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from persianmind.common.errors import BaseModelError, MachineError, PersianMindError
from persianmind.model.bases import resolve_base
from persianmind.model.export.gguf import write
from persianmind.model.export.gguf.write import export_gguf
from tests.model.export.exported import change_config, make_export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "export"
    return make_export(folder, resolve_base("random://llama"), padding=3)


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "export"))


REFUSED = {
    "a family that is not written": ({"model_type": "gemma2"}, "gemma2 model is not written as GGUF"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act=gelu"),
    "a quantised folder": ({"quantization_config": {"bits": 4}}, "quantised already"),
    "positions of another kind": (
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
        "rope_type=longrope",
    ),
    "dynamic positions, old keys": (
        {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "rope_type=dynamic",
    ),
    "positions per kind of layer": (
        {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
        "positions that differ between layers",
    ),
    "half of each head rotated": (
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor",
    ),
    "YaRN of another temperature": (
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 3.0}},
        "YaRN with attention_factor=3.0",
    ),
    "fewer layers than weights": ({"num_hidden_layers": 1}, "no weight 'model.layers.1."),
    "more layers than weights": (
        {"num_hidden_layers": 3},
        "'model.layers.2.input_layernorm.weight' is missing",
    ),
    "another vocabulary": ({"vocab_size": 1026}, "vocab_size 1026 and 1027 embeddings differ"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_written(folder: Path, tmp_path: Path, case: str) -> None:
    values, message = REFUSED[case]
    change_config(folder, **values)
    refused(folder, tmp_path, message)


def refused(
    folder: Path, tmp_path: Path, message: str, kind: type[PersianMindError] = BaseModelError
) -> None:
    """The export fails with one line that says this, and leaves no file."""
    with pytest.raises(kind) as caught:
        export_gguf(folder, tmp_path / "out" / "m.gguf", pre_tokenizer="gpt-2")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("rope", ["llama3", "linear"])
def test_llama_3_positions_are_refused_where_llama_cpp_ignores_them(tmp_path: Path, rope: str) -> None:
    scaling = {"rope_type": rope, "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 128}
    scaling |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if rope == "llama3" else {}
    exported = make_export(
        tmp_path / "export", resolve_base("random://llama"), kind="qwen2", rope_parameters=scaling
    )
    if rope == "llama3":
        refused(exported, tmp_path, "qwen2 does not compute rope_type=llama3")
    else:
        reader = GGUFReader(export_gguf(exported, tmp_path / "m.gguf", pre_tokenizer="gpt-2"))
        assert reader.get_field("qwen2.rope.scaling.factor").contents() == 8.0


def test_a_bias_that_would_be_dropped_is_refused(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "lm_head.bias": torch.zeros(1027)}, folder / "model.safetensors")
    refused(folder, tmp_path, "no weight 'lm_head.bias'")


def test_values_that_f16_cannot_hold_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][5, 5] = 1e5
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(BaseModelError, match=r"lm_head.weight holds values that are not finite in f16"):
        export_gguf(folder, tmp_path / "m.gguf", dtype="f16", pre_tokenizer="gpt-2")
    assert not list(tmp_path.glob("*m.gguf*")) and not list(tmp_path.glob("*.Modelfile"))
    export_gguf(folder, tmp_path / "m.gguf", dtype="bf16", pre_tokenizer="gpt-2")


def test_tokenizer_files_that_would_give_other_ids_are_refused(folder: Path, tmp_path: Path) -> None:
    tree = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change_config(folder, "tokenizer.json", normalizer={"type": "Lowercase"})
    refused(folder, tmp_path, "normalises text (Lowercase)")
    change_config(
        folder,
        "tokenizer.json",
        normalizer=None,
        pre_tokenizer={**tree["pre_tokenizer"], "add_prefix_space": True},
    )
    refused(folder, tmp_path, "puts a space before a text")


def test_a_sentencepiece_folder_without_its_model_is_refused(sentencepiece: Path, tmp_path: Path) -> None:
    exported = make_export(tmp_path / "export", sentencepiece, num_hidden_layers=1)
    (exported / "tokenizer.model").unlink()
    refused(exported, tmp_path, "without tokenizer.model, whose scores llama.cpp needs")


def test_without_a_chat_template_and_with_too_many_ends(folder: Path, tmp_path: Path) -> None:
    change_config(folder, "generation_config.json", eos_token_id=[1, 2, 3, 4])
    refused(folder, tmp_path, "4 tokens end a turn")
    change_config(folder, "generation_config.json", eos_token_id=1)
    (folder / "chat_template.jinja").unlink()
    refused(folder, tmp_path, "has no chat template")


def test_a_disk_without_room_is_named_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(write.shutil, "disk_usage", lambda _: usage)
    refused(folder, tmp_path, "make room", MachineError)
