"""For benchmarks/int8_quality.py: the demo's model over bases of several kinds, its batches, its losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persianmind.recipe.loading import load_recipe

if TYPE_CHECKING:
    from benchmarks.lib.demo_text import DemoText
    from persianmind.engine.base import Batch
    from persianmind.model.adapted import AdaptedModel

# What the recipe says of the base, and how gradients go through int8.
KINDS: dict[str, tuple[str, str]] = {
    "fp32": ("none", ""),
    "bf16": ("none", ""),
    "nf4": ("nf4", ""),
    "int8": ("int8", "stochastic"),
    "int8-nearest": ("int8", "nearest"),
    "int8-forward": ("int8", "float"),
}
SEQUENCES_PER_STEP = 1
MAX_GRAD_NORM = 1.0


def made(base: Path, kind: str, seed: int, text: DemoText) -> AdaptedModel:
    """The demo's model over a base of this kind."""
    from persianmind.model.adapted import build_adapted
    from persianmind.model.int8 import int8_projections
    from persianmind.vocab.expansion import load_expansion

    quantize, gradient = KINDS[kind]
    recipe = load_recipe(
        "demo",
        [
            f"seed={seed}",
            "train.precision=fp32",
            f"train.quantize={quantize}",
            "train.gradient_checkpointing=off",
        ],
    )
    expansion = load_expansion(text.vocab)
    pieces = [piece.base_ids for piece in expansion.pieces]
    model = build_adapted(base, recipe, pieces, expansion.base_vocab)
    if kind == "bf16":
        imitate_bf16(model)
    for projection in int8_projections(model):
        projection.kind = gradient  # type: ignore[assignment]
    return model


def imitate_bf16(model: AdaptedModel) -> None:
    """Rounds the weights of the projections, what they read, and the gradients of that."""
    import torch

    def rounded(value: torch.Tensor) -> torch.Tensor:
        return value.to(torch.bfloat16).to(torch.float32)

    for name, module in model.causal_lm.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith("base_layer"):
            module.weight.data = rounded(module.weight.data)
        # Inputs that projections share are rounded where they are made, so that they are shared still.
        if name.endswith("layernorm"):
            module.register_forward_hook(lambda _, __, output: rounded(output))
        if name.endswith(("o_proj", "down_proj")):
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]), *inputs[1:]))


def training_batches(text: DemoText, seed: int, steps: int) -> Iterable[Batch]:
    """Whole sequences in an order by the seed, again from the start where they end."""
    whole = [one for one in text.training.sequences if one["input_ids"].shape[1] == _longest(text)]
    order = np.random.default_rng(seed).permutation(len(whole))
    for step in range(steps):
        first = step * SEQUENCES_PER_STEP
        chosen = [whole[order[(first + i) % len(whole)]] for i in range(SEQUENCES_PER_STEP)]
        batch = {name: np.concatenate([one[name] for one in chosen]) for name in chosen[0]}
        keys = [(seed << 32) + first + i for i in range(SEQUENCES_PER_STEP)]
        yield {**batch, "sample_keys": np.array(keys, dtype=np.int64)}


def _longest(text: DemoText) -> int:
    return max(one["input_ids"].shape[1] for one in text.training.sequences)


def take_step(model: AdaptedModel, optimizer: Any, batch: Batch) -> float:
    """One optimizer step; the batch's mean loss before it, nats."""
    import torch

    from persianmind.model.documents import model_inputs

    loss = model(**model_inputs(batch, torch.device("cpu"))) / int((batch["labels"] >= 0).sum())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(list(model.trained().values()), MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def summed_loss(model: AdaptedModel, sequences: Sequence[Batch], *, base_vocab_only: bool = False) -> float:
    """Nats."""
    import torch

    from persianmind.model.documents import model_inputs

    model.eval()
    with torch.no_grad():
        total = sum(
            float(model(**model_inputs(one, torch.device("cpu")), base_vocab_only=base_vocab_only))
            for one in sequences
        )
    model.train()
    return total


def held_out_loss(model: AdaptedModel, text: DemoText) -> float:
    """Nats per token of held-out Persian."""
    return summed_loss(model, text.held_out.sequences) / text.held_out.n_tokens


def base_bits_per_byte(model: AdaptedModel, held_out: Any) -> float:
    """Of the base alone: adapters add nothing yet, new embeddings are not read."""
    from benchmarks.lib.demo_text import bits_per_byte

    return bits_per_byte(summed_loss(model, held_out.sequences, base_vocab_only=True), held_out.n_bytes)


def english_of_base(text: DemoText, folder: Path) -> Any:
    """Held-out English over the base's own vocabulary."""
    from benchmarks.lib.demo_text import SEQ_LEN
    from persianmind.evaluate.text import held_out_sequences
    from persianmind.text.heldout import read_held_out

    documents = [one.text for one in read_held_out(folder / "heldout", "en")]
    return held_out_sequences(documents, text.base, SEQ_LEN)


def untied_copy(base: Path, folder: Path) -> Path:
    """The same model with an output table of its own."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, use_safetensors=True, trust_remote_code=False)
    table = model.get_input_embeddings().weight.detach().clone()
    model.config.tie_word_embeddings = False
    model.get_output_embeddings().weight = torch.nn.Parameter(table)
    model.save_pretrained(folder)
    return folder
