"""One rank of the engine tests: what a step exchanges, and that a skipped step moves nothing.

Runs under the DeepSpeed launcher; rank 0 writes what it saw as JSON to the file named by OUT.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lib.collectives import Collectives, counted_collectives
from persianmind.engine.base import Batch, StopLevel
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.ranks import Ranks, TorchGroup, ranks_from_environment
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.model.bases import resolve_base
from persianmind.model.documents import model_inputs
from persianmind.recipe.loading import load_recipe
from persianmind.train.loop import rank_parts, read_part
from persianmind.train.selftest import run_self_tests
from tests.model.helpers import ARCHITECTURES, BASE_VOCAB, PIECES, make_base, make_recipe
from tests.support.launch import ZERO2
from tests.support.log import logged

RATES = {"adapters_a": 1e-2, "adapters_b": 1e-2, "embeddings": 1e-2}
FORWARD = AdaptedModel.forward
ACCUMULATIONS = (1, 4, 16)


def main() -> None:
    """All measurements one after the other, over one process group."""
    prepare_environment()
    torch.set_num_threads(1)  # two ranks of two threads each on two cores: four times as slow
    ranks = ranks_from_environment()
    with tempfile.TemporaryDirectory() as folder:
        # Before the group exists: transformers saves on rank 0 alone afterwards.
        models = dict(_every_architecture(Path(folder)))
    start_distributed(ranks)
    seen: dict[str, Any] = {}
    with counted_collectives() as counter:
        for accumulation in ACCUMULATIONS:
            engine = _open_engine(accumulation)
            engine.set_rates(RATES)
            engine.step(_batches(ranks.rank, accumulation))  # the first step also sets things up
            counter.reset()
            engine.step(_batches(ranks.rank, accumulation))
            seen[f"ours-{accumulation}"] = counter.as_json()
            engine.close()
            seen[f"default-{accumulation}"] = _default_zero2(counter, ranks.rank, accumulation)
    seen["exchanged"] = _exchanges(ranks)
    seen["trained"] = sum(value.numel() for value in _model().trained().values())
    seen.update(_skipped(ranks.rank))
    seen["uneven"] = _uneven(ranks)
    seen["uneven_int8"] = _uneven(ranks, "int8")
    seen["uneven_int8_other_keys"] = _uneven(ranks, "int8", _OtherSamples)
    seen["self_tests"] = _self_tests(ranks, models)
    if ranks.rank == 0:
        Path(os.environ["OUT"]).write_text(json.dumps(seen), encoding="utf-8")
    os._exit(0)


def _default_zero2(counter: Collectives, rank: int, accumulation: int) -> dict[str, Any]:
    """DeepSpeed used the ordinary way: a reduction at every micro-batch."""
    engine = _open_engine(accumulation)._deepspeed
    engine.set_gradient_accumulation_boundary(None)
    for step in range(2):
        if step:
            counter.reset()
        for batch in _batches(rank, accumulation):
            loss = engine(**{name: torch.from_numpy(array) for name, array in batch.items()})
            engine.backward(loss / 100)
            engine.step()
    seen = counter.as_json()
    engine.destroy()
    return seen


def _exchanges(ranks: Ranks) -> dict[str, Any]:
    """What the ranks agree on, of values that differ from rank to rank."""
    engine = _open_engine(1)
    engine.set_rates(RATES)
    level = StopLevel.BUDGET if ranks.rank == 1 else StopLevel.STOP if ranks.rank == 0 else StopLevel.NONE
    beats: list[int] = []
    engine.on_progress = lambda: beats.append(1)
    seen = {
        "sum": engine.sum(0.1 + ranks.rank),
        "sum_counts": engine.sum_counts([ranks.rank, 2**40, 7]),
        "max": engine.max(10 - ranks.rank),
        "stop_level": int(engine.step(_batches(ranks.rank, 2), stop_level=level).stop_level),
        "no_stop": int(engine.step(_batches(ranks.rank, 1)).stop_level),
        "gathered": TorchGroup(ranks, own=True).all_gather({"rank": ranks.rank}),
        "steps": engine.steps,
        "progress": len(beats),
    }
    engine.close()
    return seen


class _Samples:
    """Stands for StageData: sample i is always the same sequence."""

    first_key = 0

    def batch(self, samples: Sequence[int]) -> Batch:
        each = [_batches(100 + sample, 1)[0] for sample in samples]
        joined = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        return {**joined, "sample_keys": np.array(samples) + self.first_key}


class _OtherSamples(_Samples):
    first_key = 1000


def _uneven(ranks: Ranks, quantize: str = "none", samples: type[_Samples] = _Samples) -> dict[str, Any]:
    """Global batches that do not divide: the gradient against that of one process over all samples, and how
    many micro-batches this rank had. With the padding left out a rank without samples takes no part."""
    seen: dict[str, Any] = {}
    engine = _open_engine(1, quantize)
    engine.set_rates(dict.fromkeys(RATES, 0.0))
    plain = _model(quantize)
    for size, micro in ((1, 1), (3, 1), (3, 2), (5, 2), (5, 8)):
        recipe = load_recipe("tiny", [f"train.global_batch_size={size}", f"train.micro_batch_size={micro}"])
        parts = rank_parts(recipe, ranks, range(size))
        micro_batches = [read_part(samples(), part, recipe.data.seq_len) for part in parts]  # type: ignore[arg-type]
        plain.zero_grad()
        (plain(**model_inputs(_Samples().batch(range(size)), torch.device("cpu"))) / size).backward()
        expected = {name: value.grad for name, value in plain.trained().items()}
        worst = 0.0
        for name, gradient in engine.reduced_gradients(micro_batches, 1 / size):
            assert gradient is not None and expected[name] is not None, name
            scale = max(float(expected[name].abs().max()), 1e-12)
            worst = max(worst, float((gradient - expected[name]).abs().max()) / scale)
        engine.apply()
        seen[f"{size} in {micro}"] = {"error": worst, "micro_batches": len(micro_batches)}
    engine.close()
    return seen


def _skipped(rank: int) -> dict[str, Any]:
    """A skipped step and one that is not finite on rank 1 alone: nothing moves, on either rank."""
    seen: dict[str, Any] = {}
    engine = _open_engine(1)
    engine.set_rates(RATES)
    engine.step(_batches(rank, 1))
    asked: list[tuple[float, float]] = []

    def should_skip(loss: float, norm: float) -> bool:
        asked.append((loss, norm))
        return True

    before = _values(engine.model)
    result = engine.step(_batches(rank, 1), should_skip=should_skip)
    seen["should_skip"] = {
        "moved": _values(engine.model) != before,
        "reason": result.skip_reason,
        "asked": asked == [(result.loss, result.grad_norm)],
    }
    for kind, value in (("nan", float("nan")), ("inf", float("inf"))):

        def poisoned(self: AdaptedModel, *args: Any, _factor: float = value, **options: Any) -> Any:
            return FORWARD(self, *args, **options) * (_factor if rank == 1 else 1.0)

        AdaptedModel.forward = poisoned  # type: ignore[method-assign]
        result = engine.step(_batches(rank, 1))
        AdaptedModel.forward = FORWARD  # type: ignore[method-assign]
        seen[kind] = {"moved": _values(engine.model) != before, "reason": result.skip_reason}
    hook = next(iter(engine.model.trained().values())).register_hook(
        lambda grad: grad * float("nan") if rank == 1 else grad
    )
    result = engine.step(_batches(rank, 1))
    hook.remove()
    seen["gradient"] = {"moved": _values(engine.model) != before, "reason": result.skip_reason}
    result = engine.step(_batches(rank, 1), should_skip=lambda loss, norm: False)
    seen["control"] = {"moved": _values(engine.model) != before, "reason": result.skip_reason}
    seen["norms"] = [result.grad_norm, float(engine._deepspeed.get_global_grad_norm())]
    return seen


def _every_architecture(folder: Path) -> Iterator[tuple[str, AdaptedModel]]:
    for architecture in ARCHITECTURES:
        for tied in (False, True):
            name = f"{architecture}-{'tied' if tied else 'untied'}"
            base = make_base(folder / name, architecture, tied=tied)
            yield name, build_adapted(base, make_recipe(), PIECES[:3], BASE_VOCAB)


def _self_tests(ranks: Ranks, models: Mapping[str, AdaptedModel]) -> dict[str, int]:
    """The self-tests of a run (isolation, sharded gradient, movement): lines logged for each model."""
    passed: dict[str, int] = {}
    config = resolve_deepspeed_config(ZERO2, load_recipe("tiny"), ranks.world_size)
    batches = [batch for rank in range(ranks.world_size) for batch in _batches(rank, 1, BASE_VOCAB)]
    for name, model in models.items():
        with logged(logging.INFO) as lines:
            run_self_tests(
                model, lambda model=model: DeepSpeedEngine(model, config, ranks), batches, torch.device("cpu")
            )
        passed[name] = sum(line.startswith("self-test: ") for line in lines)
    return passed


def _values(model: AdaptedModel) -> list[float]:
    return [float(value.double().sum()) for value in model.trained().values()]


def _model(quantize: str = "none") -> AdaptedModel:
    recipe = load_recipe("tiny", [f"train.quantize={quantize}"])
    return build_adapted(resolve_base(recipe.base), recipe, [[5, 6], [7], [8, 9]], 1024)


def _open_engine(accumulation: int, quantize: str = "none") -> DeepSpeedEngine:
    recipe = load_recipe("tiny", [f"train.global_batch_size={2 * accumulation}"])
    ranks = ranks_from_environment()
    return DeepSpeedEngine(_model(quantize), resolve_deepspeed_config(ZERO2, recipe, ranks.world_size), ranks)


def _batches(rank: int, count: int, base_vocab: int = 1024) -> list[Batch]:
    generator = np.random.default_rng(rank)
    batches = []
    for _ in range(count):
        ids = generator.integers(0, base_vocab + 3, (1, 32))
        ids[0, :3] = [base_vocab, base_vocab + 1, base_vocab + 2]
        labels = np.roll(ids, -1, axis=1)
        labels[0, -1] = -100
        batches.append({"input_ids": ids, "position_ids": np.arange(32)[None], "labels": labels})
    return batches


if __name__ == "__main__":
    main()
