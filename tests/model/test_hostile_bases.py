"""Bases that somebody made to hang or to break what reads them: each is one line within a second or two."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from persianmind.common.errors import BaseModelError, DataError, VocabError
from persianmind.model import base_files
from persianmind.model.base_files import MAX_HEADER_BYTES, weight_files
from persianmind.model.bases import base_fingerprint, check_base, check_model_folder, resolve_base
from persianmind.model.config_limits import LIMITS, check_config, without_code
from persianmind.model.families import FAMILIES
from persianmind.model.known_bases import KNOWN_BASES
from persianmind.publish.opening import ModelPlace
from persianmind.tokenizer import MAX_TOKENIZER_BYTES, FolderTokenizer
from persianmind.vocab.families import open_base
from tests.model.family_cases import make_family_base
from tests.model.helpers import make_base

MOST_S = 30.0  # on a busy machine; alone none takes one
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "whole", "llama", tied=False)


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "base"))


@pytest.fixture(autouse=True)
def in_seconds() -> Iterator[None]:
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s < MOST_S


def state(base: Path, **changes: Any) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "vocabulary": ({"vocab_size": 2**40}, "vocab_size 1099511627776, and models have 1 to 4,194,304"),
    "401 digits": ({"vocab_size": 10**400}, "vocab_size 1000"),
    "layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000"),
    "width": ({"hidden_size": 2**62}, "hidden_size"),
    "inner width": ({"intermediate_size": 2**40}, "intermediate_size"),
    "experts": ({"num_local_experts": 10**9}, "num_local_experts"),
    "no layer": ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
    "negative": ({"hidden_size": -4096}, "hidden_size -4096"),
    "true": ({"num_hidden_layers": True}, "num_hidden_layers True"),
    "text": ({"hidden_size": "4096"}, "hidden_size '4096'"),
    "fraction": ({"hidden_size": 32.5}, "hidden_size 32.5"),
    "not a number": ({"rope_theta": float("nan")}, "rope_theta nan"),
    "infinite": ({"rope_theta": float("inf")}, "rope_theta inf"),
    "in a part": ({"rope_scaling": {"original_size": 2**50}}, "original_size"),
    "in a list": ({"window_size": [1, 2**50]}, "window_size"),
    "layer types": ({"layer_types": [[1]]}, "layer_types"),
    "a number as layer types": ({"layer_types": 7}, "layer_types 7"),
    "more layers than lie there": ({"num_hidden_layers": 7}, "7 layers, and its files hold 2"),
    "another table": ({"vocab_size": 4096}, "vocab_size 4,096, and no table"),
    "another width": ({"hidden_size": 4096}, "hidden_size 4,096, and no weight"),
    "an end that is text": ({"eos_token_id": "</s>"}, "eos_token_id '</s>'"),
    "an end that is true": ({"eos_token_id": [2, True]}, "eos_token_id [2, True]"),
    "many ends": ({"eos_token_id": [2] * 2000}, "eos_token_id [2, 2"),
    "other weights": ({"transformers_weights": "other.safetensors"}, "transformers_weights from"),
    "a kernel": ({"_attn_implementation": "evil/kernel"}, "_attn_implementation from 'evil/kernel'"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_that_no_model_has(base: Path, kind: str) -> None:
    changes, said = CONFIGS[kind]
    check_base(str(base))
    state(base, **changes)
    with pytest.raises(BaseModelError) as caught:
        check_base(str(base))
    assert said in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_configs_of_all_families_and_of_known_bases_pass() -> None:
    """The control of the limits: what transformers writes for each family, and real shapes."""
    for name in FAMILIES:
        config = AutoConfig.for_model(name).to_dict()
        check_config(config, name)
        assert config.keys() - without_code(config).keys() == {"_name_or_path"}
    for known in KNOWN_BASES:
        check_config(known.config, known.name)
        assert without_code(known.config) == known.config
        assert all(100 * known.config[key] > most / 100 for key, most in LIMITS.items())


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "opt", "gpt_neox"])
def test_files_of_families_pass(name: str, tmp_path: Path) -> None:
    """The control of the comparison of config.json with the files."""
    check_model_folder(make_family_base(tmp_path / name, name))


def link(target: Path | str) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        (base / WEIGHTS).unlink()
        (base / WEIGHTS).symlink_to(target)

    return change


def pipe(base: Path) -> None:
    (base / WEIGHTS).unlink()
    os.mkfifo(base / WEIGHTS)


def folder_of_that_name(base: Path) -> None:
    (base / WEIGHTS).unlink()
    (base / WEIGHTS).mkdir()


def outside(base: Path) -> None:
    (base / WEIGHTS).rename(base.parent / "weights")
    (base / WEIGHTS).symlink_to(base.parent / "weights")


def index(*names: str) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        (base / WEIGHTS).unlink()
        weights = {f"w{i}": name for i, name in enumerate(names)}
        (base / INDEX).write_text(json.dumps({"weight_map": weights}), encoding="utf-8")

    return change


def device_in_index(base: Path) -> None:
    index("model-1.safetensors")(base)
    (base / "model-1.safetensors").symlink_to("/dev/zero")


def header(length: int, content: bytes = b"") -> Callable[[Path], None]:
    def change(base: Path) -> None:
        (base / WEIGHTS).write_bytes(length.to_bytes(8, "little") + content)

    return change


def tensors(**entries: Any) -> Callable[[Path], None]:
    raw = json.dumps(entries).encode()
    return header(len(raw), raw + b"\0" * 64)


def cut(base: Path) -> None:
    content = (base / WEIGHTS).read_bytes()
    (base / WEIGHTS).write_bytes(content[: len(content) // 2])


def sparse(name: str, size: int) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        with (base / name).open("ab") as handle:
            handle.truncate(size)

    return change


def written(name: str, content: str) -> Callable[[Path], None]:
    def change(base: Path) -> None:
        (base / name).write_text(content, encoding="utf-8")

    return change


def entry(shape: list[Any], end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an endless device": (link("/dev/zero"), "no ordinary file"),
    "a pipe": (pipe, "no ordinary file"),
    "a folder": (folder_of_that_name, "no ordinary file"),
    "a loop of links": (link(WEIGHTS), "is missing"),
    "a link to nothing": (link("nothing"), "is missing"),
    "a link out of the folder": (outside, "leads out of its folder"),
    "an endless device in the index": (device_in_index, "no ordinary file"),
    "an index out of the folder": (index("../x.safetensors"), "lists no files"),
    "an index of a missing file": (index("model-1.safetensors"), "is missing"),
    "an index of 20,000 files": (index(*(f"m{i}" for i in range(20_000))), "lists no files"),
    "a header of 2^60 bytes": (header(2**60), "no safetensors file"),
    "a header larger than any": (header(MAX_HEADER_BYTES + 1, b" " * 64), "no safetensors file"),
    "an empty file": (lambda base: (base / WEIGHTS).write_bytes(b""), "no safetensors file"),
    "a header that is none": (header(2, b"[]"), "do not fit"),
    "a deep header": (header(20_000, b"[" * 20_000), "do not fit"),
    "a tensor beyond the file": (tensors(w=entry([2**40], 2**42)), "do not fit"),
    "a tensor of another size": (tensors(w=entry([2**40], 64)), "do not fit"),
    "a tensor of negative size": (tensors(w=entry([-16], 64)), "do not fit"),
    "a tensor of true": (tensors(w=entry([True, 16], 64)), "do not fit"),
    "bytes that no tensor has": (tensors(w=entry([2], 8)), "do not fit"),
    "a file cut short": (cut, "do not fit"),
    "a large config": (sparse("config.json", 1 << 30), "at most 67,108,864 are read"),
    "a large tokenizer": (sparse("tokenizer.json", MAX_TOKENIZER_BYTES + 1), "at most 268,435,456"),
    "a large template": (sparse("chat_template.jinja", 2 << 20), "at most 1,048,576"),
    "no generation settings": (written("generation_config.json", "[]"), "no JSON object"),
    "deep generation settings": (written("generation_config.json", "[" * 20_000), "no JSON object"),
    "an end of generation": (written("generation_config.json", '{"eos_token_id": {}}'), "eos_token_id {}"),
    "tokenizer settings": (written("tokenizer_config.json", '{"a": '), "no JSON object"),
    "another model's adapter": (
        written("adapter_config.json", "{}"), "adapter_config.json"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_not_what_they_should_be(base: Path, kind: str) -> None:
    change, said = FILES[kind]
    change(base)
    for look in (lambda: check_base(str(base)), lambda: check_model_folder(base)):
        with pytest.raises(BaseModelError) as caught:
            look()
        assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["an endless device", "an endless device in the index", "a pipe"])
def test_nothing_is_hashed_for_ever(base: Path, kind: str) -> None:
    FILES[kind][0](base)
    for look in (base_fingerprint, weight_files):
        with pytest.raises(BaseModelError, match="no ordinary file"):
            look(base)


def test_without_the_check_a_link_would_be_followed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    outside(base)
    monkeypatch.setattr(base_files, "own_file", lambda path: path)
    check_base(str(base))


def test_the_hubs_cache_and_folders_with_links_into_it_pass(base: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot, blobs, local = repository / "snapshots" / "abc", repository / "blobs", tmp_path / "local"
    for folder in (snapshot, blobs, local):
        folder.mkdir(parents=True)
    for path in base.iterdir():
        shutil.copy(path, blobs / f"sha-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/sha-{path.name}")
        (local / path.name).symlink_to(blobs / f"sha-{path.name}")
    (tmp_path / "alias").symlink_to(base)
    for folder in (snapshot, local, tmp_path / "alias"):
        check_base(str(folder))
        assert base_fingerprint(folder) == base_fingerprint(base)


@pytest.mark.parametrize("kind", ["a header of 2^60 bytes", "an endless device", "a large tokenizer"])
def test_a_model_folder_to_talk_to_is_looked_at_as_well(tmp_path: Path, kind: str) -> None:
    folder = Path(shutil.copytree(resolve_base("random://llama"), tmp_path / "model"))
    ModelPlace(folder).check()
    FILES[kind][0](folder)
    with pytest.raises(BaseModelError, match=FILES[kind][1]):
        ModelPlace(folder).check()


def test_a_tokenizer_without_end_is_not_read(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(resolve_base("random://llama"), tmp_path / "model"))
    sparse("tokenizer.json", MAX_TOKENIZER_BYTES + 1)(folder)
    with pytest.raises(DataError, match="at most 268,435,456"):
        FolderTokenizer(folder)
    with pytest.raises(VocabError, match="at most 268,435,456"):
        open_base(folder)
