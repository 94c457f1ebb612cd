"""What stands in the file, read with gguf's own reader, and what is refused before anything is written."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize
from safetensors.torch import load_file

from persianmind.common.errors import UsageError
from persianmind.model.bases import resolve_base
from persianmind.model.export.gguf import write
from persianmind.model.export.gguf.plan import rotate_pairs
from persianmind.model.export.gguf.write import export_gguf
from persianmind.model.export.source import FolderTensors
from tests.model.export.exported import make_export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small tokenizer: llama.cpp's hash of it is unknown, so the pre-tokenizer is named."""
    folder = tmp_path_factory.mktemp("exported") / "export"
    ends = {"eos_token_id": [1, 5, 6], "repetition_penalty": 1.25}
    return make_export(folder, resolve_base("random://llama"), padding=3, generation=ends)


def written(folder: Path, out: Path, **options: Any) -> GGUFReader:
    return GGUFReader(export_gguf(folder, out, pre_tokenizer="gpt-2", **options))


def value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def test_metadata(exported: Path, tmp_path: Path) -> None:
    reader = written(exported, tmp_path / "m.gguf")
    config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    expected = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 1024,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10_000.0,
        "llama.vocab_size": config["vocab_size"],
        "general.sampling.penalty_repeat": 1.25,
        "general.sampling.penalty_last_n": -1,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.eom_token_id": 6,
        "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.chat_template": (exported / "chat_template.jinja").read_text(encoding="utf-8"),
    }
    assert {key: value(reader, key) for key in expected} == expected


def test_every_id_has_its_text_and_type(exported: Path, tmp_path: Path) -> None:
    reader = written(exported, tmp_path / "m.gguf")
    vocab = json.loads((exported / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tokens, types = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    assert tokens[:1024] == sorted(vocab, key=vocab.get) and len(tokens) == len(types) == 1027
    assert types[:2] == [TokenType.CONTROL] * 2 and set(types[2:1024]) == {TokenType.NORMAL}
    assert types[1024:] == [TokenType.UNUSED] * 3


def test_sentencepiece_scores_and_types(sentencepiece: Path, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    exported = make_export(tmp_path / "export", sentencepiece, num_hidden_layers=1)
    reader = GGUFReader(export_gguf(exported, tmp_path / "m.gguf"))
    model = SentencePieceProcessor(model_file=str(sentencepiece / "tokenizer.model"))
    ids = range(3, len(model) - 1)  # <unk>, <s>, </s>; [PAD] is the last
    scores, types = value(reader, "tokenizer.ggml.scores"), value(reader, "tokenizer.ggml.token_type")
    assert [scores[i] for i in ids] == [model.get_score(i) for i in ids]
    byte = [types[i] == TokenType.BYTE for i in ids]
    assert byte == [model.is_byte(i) for i in ids] and sum(byte) == 256
    assert types[:3] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    assert types[len(model) - 1] == TokenType.CONTROL
    assert value(reader, "tokenizer.ggml.add_bos_token") is True
    assert value(reader, "tokenizer.ggml.add_space_prefix") is True
    assert value(reader, "tokenizer.ggml.unknown_token_id") == 0


@pytest.mark.parametrize(("dtype", "off"), [("f32", 0.0), ("f16", 5e-4), ("bf16", 4e-3), ("q8_0", 1e-2)])
def test_weights(exported: Path, tmp_path: Path, dtype: Any, off: float) -> None:
    """Each weight comes back, to the precision of its type; norms stay in fp32."""
    reader = written(exported, tmp_path / "m.gguf", dtype=dtype)
    found = {tensor.name: tensor for tensor in reader.tensors}
    weights = load_file(exported / "model.safetensors")
    assert len(found) == len(weights) == 3 + 2 * 9
    pairs = {
        "token_embd": weights["model.embed_tokens.weight"],
        "output": weights["lm_head.weight"],
        "blk.1.ffn_down": weights["model.layers.1.mlp.down_proj.weight"],
        "blk.0.attn_q": rotate_pairs(weights["model.layers.0.self_attn.q_proj.weight"], 4),
        "blk.0.attn_k": rotate_pairs(weights["model.layers.0.self_attn.k_proj.weight"], 2),
        "blk.0.attn_v": weights["model.layers.0.self_attn.v_proj.weight"],
        "blk.0.attn_norm": weights["model.layers.0.input_layernorm.weight"],
    }
    for name, weight in pairs.items():
        tensor = found[f"{name}.weight"]
        back = dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        largest = off * weight.abs().max().item() * (0 if name.endswith("norm") else 1)
        np.testing.assert_allclose(back, weight.numpy(), atol=largest, rtol=0)


def test_rows_that_change_places() -> None:
    weight = torch.arange(8.0).unsqueeze(1)  # two heads of four
    assert rotate_pairs(weight, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_weights_come_from_the_source_and_one_at_a_time(exported: Path, tmp_path: Path) -> None:
    class Doubled:
        def __init__(self) -> None:
            self.inner = FolderTensors(exported)
            self.loaded: list[str] = []
            self.last: weakref.ref[torch.Tensor] | None = None

        def shapes(self):  # type: ignore[no-untyped-def]
            return self.inner.shapes()

        def load(self, name: str) -> torch.Tensor:
            assert self.last is None or self.last() is None, "the one before is still held"
            self.loaded.append(name)
            weight = self.inner.load(name) * 2
            self.last = weakref.ref(weight)
            return weight

    source = Doubled()
    plain = {t.name: t.data for t in written(exported, tmp_path / "a.gguf", dtype="f32").tensors}
    doubled = written(exported, tmp_path / "b.gguf", dtype="f32", tensors=source)
    for tensor in doubled.tensors:
        np.testing.assert_array_equal(tensor.data, 2 * plain[tensor.name])
    assert sorted(source.loaded) == sorted(source.inner.shapes())


def test_a_tied_model_holds_its_table_once(tmp_path: Path) -> None:
    exported = make_export(tmp_path / "e", resolve_base("random://llama"), tie_word_embeddings=True)
    assert "output.weight" not in {tensor.name for tensor in written(exported, tmp_path / "m.gguf").tensors}


def test_a_file_that_is_there_is_kept(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        export_gguf(exported, tmp_path / "m.gguf")
    with pytest.raises(UsageError, match="no name for a GGUF"):
        export_gguf(exported, tmp_path / "m.bin")
    assert (tmp_path / "m.gguf").read_text() == "mine"


def test_an_interrupted_export_leaves_nothing(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        assert any(path.suffix == ".tmp" for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "tensor_data", fail)
    with pytest.raises(KeyboardInterrupt):
        export_gguf(exported, tmp_path / "m.gguf", pre_tokenizer="gpt-2")
    assert list(tmp_path.iterdir()) == []


def test_a_sliding_window_is_the_context(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Within the window full attention is the same; beyond it llama.cpp would compute otherwise."""
    base = resolve_base("random://llama")
    mistral = make_export(tmp_path / "mistral", base, kind="mistral", sliding_window=256)
    assert value(written(mistral, tmp_path / "a.gguf"), "llama.context_length") == 256
    assert "slides over 256 tokens" in caplog.text
    whole = make_export(tmp_path / "whole", base, kind="mistral", sliding_window=None)
    assert value(written(whole, tmp_path / "b.gguf"), "llama.context_length") == 1024
    qwen = make_export(tmp_path / "qwen", base, kind="qwen2", sliding_window=256, use_sliding_window=False)
    assert value(written(qwen, tmp_path / "c.gguf"), "qwen2.context_length") == 1024
