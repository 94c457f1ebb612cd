"""One rank of test_json_trains.py: what DeepSpeed trains with each JSON, beside plain torch on one process.

Runs under the DeepSpeed launcher; rank 0 writes what it saw as JSON to the file named by OUT.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persianmind.checkpoint.store import CheckpointStore
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.deepspeed.reshard import MASTER, gather_state
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.ranks import Ranks, TorchGroup, ranks_from_environment
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.documents import model_inputs
from persianmind.recipe.loading import load_recipe
from tests.engine.json_cases import RECIPE, TRAINED, UNFILLED
from tests.model.helpers import BASE_VOCAB, PIECES, make_base, packed_batch

STEPS, RATE = 2, 1e-2
State = dict[str, Tensor]


def main() -> None:
    """Every case over one process group; the model is put back before each."""
    prepare_environment()
    torch.set_num_threads(1)
    ranks = ranks_from_environment()
    recipe = load_recipe("tiny", RECIPE)
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder) / "base", "llama", tied=False)
        model = build_adapted(base, recipe, PIECES, BASE_VOCAB)
        first = _values(model)
        expected = _plain(model, ranks.world_size)
    start_distributed(ranks)
    seen: dict[str, Any] = {}
    out = Path(os.environ["OUT"])
    for name, stated in TRAINED.items():
        path = out.parent / f"{name}-{ranks.rank}.json"
        path.write_text(json.dumps(stated), encoding="utf-8")
        config = resolve_deepspeed_config(path, recipe, ranks.world_size)
        seen[name] = _trained(model, first, config, ranks, expected, out.parent / "saved" / name)
    zero = {**config["zero_optimization"], "round_robin_gradients": True}
    controls = {"round_robin": {**config, "zero_optimization": zero}, "unfilled": UNFILLED}
    for name, config in controls.items():
        seen[name] = _trained(model, first, config, ranks, expected, out.parent / "saved" / name)
    if ranks.rank == 0:
        out.write_text(json.dumps(seen), encoding="utf-8")
    os._exit(0)


def _plain(model: AdaptedModel, world_size: int) -> State:
    """The trained values after STEPS of torch's own AdamW and clipping, the numbers written out here."""
    first = _values(model)
    optimizer = torch.optim.AdamW(
        model.trained().values(), lr=RATE, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.3
    )
    for step in range(STEPS):
        optimizer.zero_grad()
        batches = [_batch(step, rank) for rank in range(world_size)]
        targets = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
        for batch in batches:
            (model(**model_inputs(batch, torch.device("cpu"))) / targets).backward()
        torch.nn.utils.clip_grad_norm_(model.trained().values(), 0.05)
        optimizer.step()
    optimizer.zero_grad()
    values = _values(model)
    _put(model, first)
    return values


def _trained(
    model: AdaptedModel, first: State, config: dict[str, Any], ranks: Ranks, expected: State, saved: Path
) -> dict[str, Any]:
    """What the live engine says it does, and how far its weights and its checkpoint are from `expected`."""
    _put(model, first)
    engine = DeepSpeedEngine(model, config, ranks)
    engine.set_rates(dict.fromkeys(("adapters_a", "adapters_b", "embeddings"), RATE))
    for step in range(STEPS):
        engine.step([_batch(step, ranks.rank)])
    deepspeed = engine._deepspeed
    groups = deepspeed.optimizer.optimizer.param_groups
    store = CheckpointStore(saved, keep_last=1, keep_every_steps=None)
    store.save(1, {}, engine.snapshot().write, TorchGroup(ranks, own=True))
    checkpoint = store.newest_good(TorchGroup(ranks, own=True))
    assert checkpoint is not None
    masters = {name: value[MASTER] for name, value in gather_state(checkpoint).parameters.items()}
    seen = {
        "optimizer": type(deepspeed.optimizer.optimizer).__name__,
        "betas": sorted({str(list(group["betas"])) for group in groups}),
        "eps": sorted({group["eps"] for group in groups}),
        "weight_decay": sorted({group["weight_decay"] for group in groups}),
        "clipping": deepspeed.gradient_clipping(),
        "stage": int(deepspeed.zero_optimization_stage()),
        "bf16": deepspeed.bfloat16_enabled(),
        "communication": str(deepspeed.communication_data_type),
        "batch": [
            deepspeed.train_batch_size(),
            deepspeed.train_micro_batch_size_per_gpu(),
            deepspeed.gradient_accumulation_steps(),
        ],
        "error": _distance(_values(model), expected),
        "checkpoint_error": _distance(masters, expected),
    }
    engine.close()
    return seen


def _batch(step: int, rank: int) -> dict[str, Any]:
    batch = packed_batch(vocab=BASE_VOCAB + len(PIECES), seed=10 * step + rank)
    return {name: value.numpy() for name, value in batch.items()}


def _values(model: AdaptedModel) -> State:
    return {name: value.detach().clone() for name, value in model.trained().items()}


@torch.no_grad()
def _put(model: AdaptedModel, values: State) -> None:
    for name, value in model.trained().items():
        value.copy_(values[name])


def _distance(values: State, expected: State) -> float:
    assert values.keys() == expected.keys()
    return max(float((values[name] - expected[name]).abs().max()) for name in expected)


if __name__ == "__main__":
    main()
