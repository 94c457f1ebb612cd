"""The whole line over a SentencePiece base (Mistral's tokenizer, a tiny model): two ranks, 4 bits and int8.

The other end-to-end tests have a byte-level BPE: both tokenizer families and both quantised bases go through
the real launcher.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.launch import Launched, launch

pytestmark = [pytest.mark.more, pytest.mark.integration]
FEW = ["stages.0.tokens=6144", "stages.1.tokens=2048", "stages.2.tokens=2048"]


def _make_base(folder: Path) -> Path:
    """A random two-layer Llama of 32,000 ids with the tokenizer.model that mistral-common carries."""
    import importlib.util
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    spec = importlib.util.find_spec("mistral_common")
    assert spec is not None and spec.origin is not None
    shutil.copy2(Path(spec.origin).parent / "data" / "tokenizer.model.v1", folder / "tokenizer.model")
    return folder


@pytest.fixture(scope="module", params=["nf4", "int8"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("sentencepiece")
    base = _make_base(folder / "base")
    arguments = ["--recipe", "tiny", "--output", str(folder / "run"), f"base={base}", "vocab.pad_token=true"]
    launched = launch(*arguments, f"train.quantize={request.param}", *FEW, ranks=2)
    assert launched.code == 0, launched.text
    return launched


def test_the_run_finishes_and_learns(run: Launched) -> None:
    assert run.stages == ["base", "pretrain", "instruct-1", "instruct-2"]
    assert run.bits("instruct-2", "fa") < 0.7 * run.bits("base", "fa")
    assert run.results["model"]["base_vocab"] == 32_000
    assert run.results["model"]["added_vocab"] == 401  # 400 pieces and [PAD], the last id


def test_the_export_has_an_embedding_per_id_and_round_trips(run: Launched) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.run / "export")
    model = AutoModelForCausalLM.from_pretrained(run.run / "export")
    assert model.config.vocab_size == len(tokenizer) == 32_401
    assert tokenizer.convert_ids_to_tokens(32_400) == "[PAD]"
    text = "دل می‌رود ز دستم صاحب‌دلان خدا را"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert max(ids) >= 32_000 and tokenizer.decode(ids).strip() == text


def test_the_base_was_quantised(run: Launched) -> None:
    """The count is of weights, whatever they are packed in; memory of the weights says how they are held."""
    line = next(line for line in run.text.splitlines() if line.startswith("model: "))
    projections = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    adapters = 2 * 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    total = projections + 2 * 32_401 * 64 + 5 * 64 + adapters
    assert f"{total:,} parameters" in line
    recipe = (run.run / "recipe.yaml").read_text(encoding="utf-8")
    assert "quantize: nf4" in recipe or "quantize: int8" in recipe
    export = run.results["export"]  # against the same adapters over the 16-bit base
    assert export["tolerance"] == 1e-4 and export["losses"].keys() == {"trained", "unquantized", "exported"}
    assert export["losses"]["exported"] != export["losses"]["trained"]
