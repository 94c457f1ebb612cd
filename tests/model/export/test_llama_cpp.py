"""The GGUF in llama.cpp itself: token ids of many texts, then log-probabilities; each with its control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from persianmind.model.bases import resolve_base
from persianmind.model.export.gguf import plan, vocabulary, write
from persianmind.model.export.gguf.write import export_gguf
from tests.model.export.exported import make_export, mixed_texts
from tests.support.llama_server import LlamaServer

pytestmark = [pytest.mark.more, pytest.mark.integration]
FAMILIES = ["byte_level", "mistral"]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, byte_level: Path, mistral: Path) -> dict[str, Path]:
    """A tiny model over each expanded tokenizer, with some ids of padding."""
    folder = tmp_path_factory.mktemp("exports")
    tokenizers = {"byte_level": byte_level, "mistral": mistral}
    return {name: make_export(folder / name, one, padding=7) for name, one in tokenizers.items()}


@pytest.fixture(scope="module")
def texts_ids(exports: dict[str, Path]) -> dict[str, list[list[int]]]:
    """What tokenizer.json gives for every text."""
    found = {}
    for name, folder in exports.items():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        found[name] = tokenizer(list(mixed_texts()), add_special_tokens=False)["input_ids"]
    return found


def others(server: LlamaServer, expected: list[list[int]]) -> int:
    """How many texts get other ids in llama.cpp."""
    found = sum(server.token_ids(text) != ids for text, ids in zip(mixed_texts(), expected, strict=True))
    print(f"{found} of {len(expected)} texts differ")
    return found


@torch.no_grad()
def deviation(server: LlamaServer, model: Any, ids: list[int]) -> float:
    """The largest difference among the 50 likeliest next tokens, in nats."""
    expected = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    top = server.top_logprobs(ids)
    assert len(top) == 50
    largest = max(abs(found - expected[token_id].item()) for token_id, found in top.items())
    print(f"log-probabilities differ by at most {largest:.5f}")
    return largest


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_and_probabilities(
    family: str, exports: dict[str, Path], texts_ids: dict[str, list[list[int]]], tmp_path: Path
) -> None:
    """Both languages, newlines, digits, code, emoji and ZWNJ: not one text with another id."""
    assert len(mixed_texts()) >= 500
    model = load(exports[family])
    with LlamaServer(export_gguf(exports[family], tmp_path / "m.gguf", dtype="f32")) as server:
        assert others(server, texts_ids[family]) == 0
        for ids in texts_ids[family][20:26]:
            assert deviation(server, model, ids[:300]) < 1e-3


def test_control_a_wrong_pre_tokenizer_gives_other_ids_and_the_same_logits(
    exports: dict[str, Path],
    texts_ids: dict[str, list[list[int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, expected = exports["byte_level"], texts_ids["byte_level"]
    right = export_gguf(folder, tmp_path / "right.gguf")
    with LlamaServer(right) as server:
        logprobs = server.top_logprobs(expected[20][:200])
    monkeypatch.setattr(vocabulary, "pre_tokenizer_name", lambda *_: "llama-bpe")
    with LlamaServer(export_gguf(folder, tmp_path / "wrong.gguf")) as server:
        assert server.top_logprobs(expected[20][:200]) == logprobs
        assert others(server, expected) > 30


def test_control_sentencepiece_without_scores_gives_other_ids(
    exports: dict[str, Path],
    texts_ids: dict[str, list[list[int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What llama.cpp's converter falls back to where tokenizer.model is missing."""

    def without_scores(*arguments: Any) -> vocabulary.GgufVocab:
        vocab = vocabulary.read_vocab(*arguments)
        return replace(vocab, scores=[-1000.0] * len(vocab.tokens))

    monkeypatch.setattr(write, "read_vocab", without_scores)
    with LlamaServer(export_gguf(exports["mistral"], tmp_path / "m.gguf")) as server:
        assert others(server, texts_ids["mistral"]) > 0.9 * len(mixed_texts())


LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 256,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3.1 positions": ("llama", {"rope_parameters": LLAMA_3}),
    "another theta": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "linear positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "yarn": ("llama", {"rope_parameters": YARN}),
    "wide heads": ("llama", {"head_dim": 32}),
    "mistral": ("mistral", {"sliding_window": 512}),
    "qwen2": ("qwen2", {}),
    "qwen2, yarn": ("qwen2", {"rope_parameters": YARN}),
    "qwen3": ("qwen3", {"head_dim": 32}),
}


def worst(folder: Path, out: Path) -> float:
    """The largest deviation at three lengths, of the small tokenizer's ids."""
    model = load(folder)
    with LlamaServer(export_gguf(folder, out, dtype="f32", pre_tokenizer="gpt-2")) as server:
        random = torch.Generator().manual_seed(1)
        prompts = [torch.randint(2, 1000, (length,), generator=random).tolist() for length in (7, 60, 500)]
        return max(deviation(server, model, ids) for ids in prompts)


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_and_kind_of_positions(name: str, tmp_path: Path) -> None:
    kind, settings = MODELS[name]
    folder = make_export(tmp_path / "export", resolve_base("random://llama"), kind=kind, **settings)
    assert worst(folder, tmp_path / "m.gguf") < 1e-3


@pytest.mark.parametrize("control", ["rows in the order of transformers", "no factors for llama 3.1"])
def test_controls_of_the_probabilities(control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch: dict[str, Callable[[], None]] = {
        "rows in the order of transformers": partial(
            monkeypatch.setattr, plan, "rotate_pairs", lambda weight, _: weight
        ),
        "no factors for llama 3.1": partial(monkeypatch.setattr, plan, "rope_factors", lambda _: None),
    }
    patch[control]()
    base = resolve_base("random://llama")
    folder = make_export(tmp_path / "export", base, rope_parameters=LLAMA_3)
    assert worst(folder, tmp_path / "m.gguf") > 0.1
