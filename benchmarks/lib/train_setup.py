"""What all sides of benchmarks/train.py share: documents, tokenizer ids, a base that has learned a little."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
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
HELD_OUT_DOCUMENTS, BASE_STEPS = 60, 30
LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Size:
    """A Llama and its step. is_taught: a few steps of the whole model, so that its losses mean something."""

    name: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    seq_len: int
    micro_batch_size: int
    accumulation: int
    is_taught: bool


SMALL = Size("512x6", 512, 1376, 6, 8, seq_len=256, micro_batch_size=2, accumulation=2, is_taught=True)
# The projections of a 7B are 4,096 wide: at 2,048 a step is spent where a 7B's is, which at 512 it is not.
# With 5,190 ids the head has a tenth of the multiplications (2.6% in a 7B with 41,510); with 32,000 it would
# have two thirds.
LARGE = Size("2048x2", 2048, 5504, 2, 16, seq_len=1024, micro_batch_size=1, accumulation=1, is_taught=False)
SIZES = {size.name: size for size in (SMALL, LARGE)}


def prepare(folder: Path, sizes: list[Size]) -> None:
    """Writes docs.json (ids of each document), pieces.json, and of each size a base (4,190 ids) and a wide
    one (all 5,190 ids)."""
    recipe = load_recipe("demo")
    evaluated = fingerprints_of(select_held_out(recipe))
    texts = training_texts(source_specs(recipe, ["poems"]), evaluated)
    lines = [line for text in texts for line in text.split("\n") if line]
    merges, encode = _train_bpe(lines)
    documents = list(_documents(lines, encode))
    (folder / "docs.json").write_text(json.dumps(documents))
    pieces = [_spelled(number, merges) for number in range(BASE_VOCAB, BASE_VOCAB + ADDED)]
    (folder / "pieces.json").write_text(json.dumps(pieces))
    spelled = [[one for token in doc for one in _spelled(token, merges)] for doc in documents]
    for size in sizes:
        base = make_llama(BASE_VOCAB, size)
        if size.is_taught:
            _teach(base, spelled[HELD_OUT_DOCUMENTS:], size)
        base.save_pretrained(folder / size.name / "base")
        adapted = ours(folder, size)
        wide = make_llama(BASE_VOCAB + ADDED, size)
        wide.load_state_dict(base.state_dict() | _tables(adapted), strict=True)
        wide.save_pretrained(folder / size.name / "wide")


def make_llama(vocab: int, size: Size = SMALL) -> Any:
    """Untied, the same weights at every call apart from the tables."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def recipe_of(ranks: int, size: Size = SMALL, *overrides: str, recompute: str = "off") -> Recipe:
    """The settings of our side."""
    return load_recipe(
        "tiny",
        [
            "adapter.rank=8",
            "adapter.alpha=16",
            f"data.seq_len={size.seq_len}",
            f"train.micro_batch_size={size.micro_batch_size}",
            f"train.global_batch_size={size.micro_batch_size * size.accumulation * ranks}",
            f"train.gradient_checkpointing={recompute}",
            *overrides,
        ],
    )


def ours(folder: Path, size: Size = SMALL, *overrides: str, recompute: str = "off") -> AdaptedModel:
    """Our model over the base."""
    pieces = json.loads((folder / "pieces.json").read_text())
    recipe = recipe_of(1, size, *overrides, recompute=recompute)
    return build_adapted(folder / size.name / "base", recipe, pieces, BASE_VOCAB)


def read_documents(folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    """(held-out, training) documents as ids."""
    documents = json.loads((folder / "docs.json").read_text())
    return documents[:HELD_OUT_DOCUMENTS], documents[HELD_OUT_DOCUMENTS:]


def packed_sequences(documents: list[list[int]], length: int = SMALL.seq_len) -> list[dict[str, Any]]:
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


def _teach(base: Any, documents: list[list[int]], size: Size) -> None:
    """A few full steps, so that the base's embeddings mean something before new ones are added."""
    optimizer = torch.optim.AdamW(base.parameters(), lr=2e-3)
    sequences = packed_sequences(documents, size.seq_len)
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
