"""What all sides of benchmarks/train.py share: documents, tokenizer ids, a base that has learned a little."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from persianmind.data.build.packer import BestFitPacker
from persianmind.data.read.sequence import build_sequence
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.recipe import Recipe
from persianmind.recipe.loading import load_recipe
from persianmind.text.corpus import training_texts
from persianmind.text.heldout import fingerprints_of, select_held_out
from persianmind.text.spec import source_specs

BASE_VOCAB, ADDED, BIG_VOCAB = 4190, 1000, 41_510
SEQ_LEN, MICRO_BATCH_SIZE, ACCUMULATION = 256, 2, 2
HELD_OUT_DOCUMENTS, BASE_STEPS = 60, 30
LEARNING_RATE = 1e-3


def prepare(folder: Path) -> None:
    """Writes docs.json (ids of each document), pieces.json, base/ (4,190 ids) and wide/ (all 5,190 ids)."""
    recipe = load_recipe("demo")
    evaluated = fingerprints_of(select_held_out(recipe))
    texts = training_texts(source_specs(recipe, ["poems"]), evaluated)
    lines = [line for text in texts for line in text.split("\n") if line]
    merges, encode = _train_bpe(lines)
    documents = list(_documents(lines, encode))
    (folder / "docs.json").write_text(json.dumps(documents))
    pieces = [_spelled(number, merges) for number in range(BASE_VOCAB, BASE_VOCAB + ADDED)]
    (folder / "pieces.json").write_text(json.dumps(pieces))
    base = make_llama(BASE_VOCAB)
    spelled = [[one for token in doc for one in _spelled(token, merges)] for doc in documents]
    _teach(base, spelled[HELD_OUT_DOCUMENTS:])
    base.save_pretrained(folder / "base")
    adapted = ours(folder)
    wide = make_llama(BASE_VOCAB + ADDED)
    wide.load_state_dict(base.state_dict() | _tables(adapted), strict=True)
    wide.save_pretrained(folder / "wide")


def make_llama(vocab: int) -> Any:
    """d 512, 6 layers, untied, the same weights at every call apart from the tables."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def recipe_of(ranks: int, *overrides: str) -> Recipe:
    """The settings of our side."""
    return load_recipe(
        "tiny",
        [
            "adapter.rank=8",
            "adapter.alpha=16",
            f"data.seq_len={SEQ_LEN}",
            f"train.micro_batch_size={MICRO_BATCH_SIZE}",
            f"train.global_batch_size={MICRO_BATCH_SIZE * ACCUMULATION * ranks}",
            "train.gradient_checkpointing=off",
            *overrides,
        ],
    )


def ours(folder: Path, *overrides: str) -> AdaptedModel:
    """Our model over the base."""
    pieces = json.loads((folder / "pieces.json").read_text())
    return build_adapted(folder / "base", recipe_of(1, *overrides), pieces, BASE_VOCAB)


def read_documents(folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    """(held-out, training) documents as ids."""
    documents = json.loads((folder / "docs.json").read_text())
    return documents[:HELD_OUT_DOCUMENTS], documents[HELD_OUT_DOCUMENTS:]


def packed_sequences(documents: list[list[int]], length: int = SEQ_LEN) -> list[dict[str, Any]]:
    """Best-fit sequences as [1, L] arrays, with `useful` tokens beside."""
    packer: BestFitPacker[list[int]] = BestFitPacker(length, 64)
    closed: list[list[list[int]]] = []
    for document in documents:
        for start in range(0, len(document), length):
            closed += packer.add(document[start : start + length])
    sequences = []
    for pieces in closed + packer.finish():
        tokens = np.zeros(length, dtype=np.int64)
        flat = [token for piece in pieces for token in piece]
        tokens[: len(flat)] = flat
        sequence = build_sequence(tokens, np.array([len(piece) for piece in pieces], dtype=np.int32), None)
        arrays = {
            "input_ids": sequence.input_ids,
            "position_ids": sequence.position_ids,
            "labels": sequence.labels,
        }
        sequences.append({"useful": len(flat), **{name: array[None] for name, array in arrays.items()}})
    return sequences


def _train_bpe(lines: list[str]) -> tuple[dict[int, tuple[int, int]], Any]:
    """A byte-level BPE of 5,190 ids whose first 4,190 are the base's: (id -> its two parts, encode)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCAB + ADDED, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    ids = model["vocab"]
    merges = {ids[left + right]: (ids[left], ids[right]) for left, right in model["merges"]}
    return merges, lambda text: tokenizer.encode(text).ids


def _spelled(number: int, merges: dict[int, tuple[int, int]]) -> list[int]:
    """A token as the base's own tokens."""
    if number < BASE_VOCAB:
        return [number]
    left, right = merges[number]
    return [*_spelled(left, merges), *_spelled(right, merges)]


def _documents(lines: list[str], encode: Any) -> Iterator[list[int]]:
    """Log-normal lengths, median 40 tokens (to sequences of 256 as web text to sequences of 2,048)."""
    chooser = random.Random(0)
    ids = iter(token for line in lines for token in [*encode(line), 0])
    while True:
        length = min(2000, max(4, int(chooser.lognormvariate(3.7, 1.1))))
        document = [token for token, _ in zip(ids, range(length), strict=False)]
        if len(document) < 4:
            return
        yield document


def _teach(base: Any, documents: list[list[int]]) -> None:
    """A few full steps, so that the base's embeddings mean something before new ones are added."""
    optimizer = torch.optim.AdamW(base.parameters(), lr=2e-3)
    sequences = packed_sequences(documents)
    for step in range(BASE_STEPS):
        group = sequences[step * 8 : step * 8 + 8]
        batch = {
            n: torch.from_numpy(np.concatenate([sequence[n] for sequence in group]))
            for n in ("input_ids", "labels")
        }
        positions = torch.from_numpy(np.concatenate([sequence["position_ids"] for sequence in group]))
        logits = base(input_ids=batch["input_ids"], position_ids=positions, use_cache=False).logits
        functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


def _tables(model: AdaptedModel) -> dict[str, torch.Tensor]:
    return {
        "model.embed_tokens.weight": model.input_table.folded(),
        "lm_head.weight": model.output_table.folded(),
    }
