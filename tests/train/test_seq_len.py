"""Stages of two sequence lengths, from text to loss: each against transformers over single documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from persianmind.data.build.builder import build_source
from persianmind.data.build.source import source_job
from persianmind.data.read.batches import StageData
from persianmind.data.read.dataset import TokenDataset
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.documents import model_inputs
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.train.loop import read_part, stage_data
from persianmind.train.stages import plan_stages
from tests.data.helpers import make_bpe, sentences, write_jsonl

CPU = torch.device("cpu")
VOCAB, LONG, SHORT, DOCUMENTS = 600, 128, 32, 60
TEXTS = sentences(DOCUMENTS, words=(2, 24))  # every one shorter than the shortest sequence


def recipe_of(folder: Path) -> Recipe:
    """One epoch of one source at each length, nothing left out of it."""
    write_jsonl(folder / "fa.jsonl", [{"text": text} for text in TEXTS])
    stage: dict[str, Any] = {"sources": {"fa": 1.0}, "epochs": 1}
    return Recipe.model_validate(
        {
            "name": "lengths",
            "base": "unused",
            "sources": {"fa": {"uri": str(folder / "fa.jsonl")}},
            "normalise": {"enabled": False},
            "quality": {"enabled": False},
            "data": {"seq_len": LONG, "sequences_per_shard": 4, "shuffle_block_sequences": 4},
            "train": {"precision": "fp32", "global_batch_size": 2, "micro_batch_size": 2},
            "stages": [{"name": "long", **stage}, {"name": "short", "seq_len": SHORT, **stage}],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a tokenizer, and the token shards of both stages."""
    folder = tmp_path_factory.mktemp("lengths")
    make_bpe(folder / "vocab", VOCAB)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=48, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=LONG, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    recipe, run = recipe_of(folder), RunFolder(folder)
    for packing in recipe.stage_packings():
        build_source(
            source_job(recipe, packing, tokenizer=run.vocab, out=run.shards(packing.name), heldout=folder)
        )
    return folder


@pytest.fixture(scope="module")
def stages(folder: Path) -> dict[int, tuple[StageData, int]]:
    """By sequence length: the stage's data, and how many sequences there are."""
    recipe, run = recipe_of(folder), RunFolder(folder)
    datasets = {one.name: TokenDataset(run.shards(one.name)) for one in recipe.stage_packings()}
    counts = {name: len(dataset) for name, dataset in datasets.items()}
    return {
        recipe.seq_len_of(plan.stage): (
            stage_data(recipe, plan, datasets),
            counts[recipe.packing("fa", plan.stage).name],
        )
        for plan in plan_stages(recipe, counts)
    }


@pytest.fixture(scope="module")
def model(folder: Path) -> AdaptedModel:
    """Adapters do nothing before the first step, so it is its base over its own ids."""
    return build_adapted(folder / "base", recipe_of(folder), [[5, 6]], VOCAB).eval()


@pytest.fixture(scope="module")
def alone(folder: Path) -> float:
    """Summed cross-entropy of every document by itself, ids and loss by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "vocab")
    plain = AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    total = 0.0
    for text in TEXTS:
        ids = torch.tensor(
            [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]]
        )
        assert ids.shape[1] <= SHORT
        with torch.no_grad():
            total += float(plain(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    return total


def total_loss(
    model: AdaptedModel, data: StageData, sequences: int, seq_len: int, *, joined: bool = False
) -> float:
    """Summed over the epoch in micro-batches of two; joined: the documents of a sequence taken for one."""
    total = 0.0
    for start in range(0, sequences, 2):
        batch = read_part(data, range(start, min(start + 2, sequences)), seq_len)
        assert batch["input_ids"].shape[1] == seq_len
        if joined:
            batch["position_ids"] = np.tile(np.arange(seq_len), (len(batch["input_ids"]), 1))
        with torch.no_grad():
            total += float(model(**model_inputs(batch, CPU), base_vocab_only=True))
    return total


@pytest.mark.parametrize("seq_len", [LONG, SHORT])
def test_the_loss_of_an_epoch_is_that_of_its_documents_alone(
    stages: dict[int, tuple[StageData, int]], model: AdaptedModel, alone: float, seq_len: int
) -> None:
    data, sequences = stages[seq_len]
    assert sequences > 3
    assert total_loss(model, data, sequences, seq_len) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("seq_len", [LONG, SHORT])
def test_control_documents_that_see_each_other_have_another(
    stages: dict[int, tuple[StageData, int]], model: AdaptedModel, alone: float, seq_len: int
) -> None:
    data, sequences = stages[seq_len]
    joined = total_loss(model, data, sequences, seq_len, joined=True)
    assert abs(joined - alone) > 1e-3 * alone


def test_the_lengths_have_folders_of_their_own_and_orders_of_their_own(
    folder: Path, stages: dict[int, tuple[StageData, int]]
) -> None:
    assert {path.name for path in (folder / "data").iterdir()} == {"fa", f"fa@{SHORT}"}
    (long, few), (short, many) = stages[LONG], stages[SHORT]
    assert many > 2 * few
    assert {long.locate(i)[1] for i in range(few)} == set(range(few))
    assert {short.locate(i)[1] for i in range(many)} == set(range(many))


def test_a_rank_without_samples_gets_padding_of_that_length(
    stages: dict[int, tuple[StageData, int]],
) -> None:
    assert read_part(stages[SHORT][0], (), SHORT)["input_ids"].shape == (1, SHORT)
