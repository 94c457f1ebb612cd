"""What can be talked to, and what is refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from persianmind.common.errors import (
    BaseModelError,
    CheckpointError,
    ExportError,
    PersianMindError,
    UsageError,
)
from persianmind.model.bases import resolve_base
from persianmind.publish.opening import ModelPlace
from persianmind.recipe.loading import load_recipe, write_run_recipe
from tests.chat.helpers import TEMPLATE, model_folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "model")
    return tmp_path / "model"


def refusal(path: Path, kind: type[PersianMindError], checkpoint: str | None = None) -> str:
    with pytest.raises(kind) as caught:
        place = ModelPlace(path, checkpoint)
        place.check()
        place.open("cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_neither(tmp_path: Path) -> None:
    assert "neither a model folder" in refusal(tmp_path, UsageError)
    assert "neither a model folder" in refusal(tmp_path / "nothing", UsageError)


def test_an_adapter_alone(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "--format hf" in refusal(tmp_path, UsageError)


def test_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    write_run_recipe(tmp_path / "recipe.yaml", load_recipe("tiny"))
    assert "no checkpoint yet" in refusal(tmp_path, CheckpointError)


def test_a_checkpoint_of_a_model_folder(folder: Path) -> None:
    assert "--checkpoint is for a run" in refusal(folder, UsageError, "step-4")


def test_a_model_without_a_chat_template() -> None:
    assert "no chat template" in refusal(resolve_base("random://llama"), UsageError)


def test_a_tokenizer_that_reads_no_special_tokens(copy: Path) -> None:
    (copy / "tokenizer.json").rename(copy / "tokenizer.model")
    assert "no tokenizer.json" in refusal(copy, UsageError)


def test_weights_that_cannot_be_loaded(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "no .safetensors weights" in refusal(copy, BaseModelError)


def test_a_config_that_makes_no_model(copy: Path) -> None:
    """Its numbers are those of a model, each by itself."""
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_attention_heads": 7}))
    assert "cannot be loaded" in refusal(copy, BaseModelError)


def test_code_of_a_folder_is_never_run(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoModelForCausalLM": "code.Model", "AutoConfig": "code.C"},
    }
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    refusal(copy, BaseModelError)
    assert not Path("ran").exists()


def test_the_template_and_the_stops_are_the_folders_own(copy: Path) -> None:
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    model = ModelPlace(copy).open("cpu")
    assert model.form.template == TEMPLATE and model.form.end_of_turn_ids == (7, 9, model.tokenizer.eos_id)


def test_a_template_by_name_in_the_tokenizers_config(copy: Path) -> None:
    """As older folders have it; one that writes the date cannot be trained on, but answered."""
    (copy / "chat_template.jinja").unlink()
    path = copy / "tokenizer_config.json"
    dated = "{{ strftime_now('%Y') }}" + TEMPLATE
    config = json.loads(path.read_text()) | {"chat_template": [{"name": "default", "template": dated}]}
    path.write_text(json.dumps(config))
    assert ModelPlace(copy).open("cpu").form.template == dated


def test_input_is_spelled_as_the_manifest_says(tmp_path: Path) -> None:
    stated = {"languages": ["en", "fa"], "normalise": {"digits": "native"}}
    ours = ModelPlace(model_folder(tmp_path / "a", **stated)).open("cpu")
    assert ours.normalise(" كتاب 12 ") == "کتاب ۱۲"
    foreign = ModelPlace(model_folder(tmp_path / "b")).open("cpu")
    assert foreign.normalise(" كتاب 12 ") == "كتاب 12"
    other = ModelPlace(model_folder(tmp_path / "c", languages=[])).open("cpu")  # says nothing of it
    assert other.normalise(" كتاب 12 ") == "كتاب 12"


def test_a_manifest_that_is_none(copy: Path) -> None:
    (copy / "manifest.json").write_text("{")
    assert "manifest.json is damaged" in refusal(copy, ExportError)
