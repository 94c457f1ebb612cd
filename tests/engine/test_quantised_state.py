"""A checkpoint over a quantised base: nothing but what is trained, and a run goes on from it bit for bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch

from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.engine.deepspeed import files
from persianmind.engine.deepspeed.config import resolve_deepspeed_config
from persianmind.engine.deepspeed.engine import DeepSpeedEngine
from persianmind.engine.deepspeed.loading import load_verified
from persianmind.engine.deepspeed.reshard import MODEL_STATES, TAG
from persianmind.engine.deepspeed.start import prepare_environment, start_distributed
from persianmind.engine.ranks import Ranks
from persianmind.model.adapted import AdaptedModel, build_adapted
from persianmind.recipe.loading import load_recipe
from tests.checkpoint.helpers import make_store, newest
from tests.model.helpers import BASE_VOCAB, PIECES, make_base, make_recipe, packed_batch
from tests.support.launch import ROOT

RANKS = Ranks(rank=0, world_size=1, local_rank=0, local_size=1)
RATES = dict.fromkeys(("adapters_a", "adapters_b", "embeddings"), 1e-2)
STATES = f"{TAG}/{MODEL_STATES}"
# Adam's state, the step counters and the container of a file, with room to spare; the frozen quantisation
# state of the tiny base is larger.
OVERHEAD_BYTES = 16_000
NAMES_BYTES = {"nf4": 0, "int8": 2_000}  # DeepSpeed lists the names of buffers


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_environment()
    start_distributed(RANKS)
    return make_base(tmp_path_factory.mktemp("base") / "base", "llama", tied=False)


def open_engine(base: Path, quantize: str = "nf4") -> DeepSpeedEngine:
    recipe = make_recipe(train={"precision": "fp32", "quantize": quantize})
    model = build_adapted(base, recipe, PIECES, BASE_VOCAB)
    config = resolve_deepspeed_config(ROOT / "ds_configs" / "zero2_qlora.json", load_recipe("tiny"), 1)
    engine = DeepSpeedEngine(model, config, RANKS)
    engine.set_rates(RATES)
    return engine


def batch() -> Any:
    arrays = {name: np.asarray(value) for name, value in packed_batch(vocab=BASE_VOCAB + len(PIECES)).items()}
    return {**arrays, "sample_keys": np.array([7])}


def saved(engine: DeepSpeedEngine, root: Path) -> StoredCheckpoint:
    make_store(root).save(engine.steps, {"fingerprint": "f"}, engine.snapshot().write)
    return newest(root)


def trained_bytes(model: AdaptedModel) -> int:
    return sum(value.numel() * value.element_size() for value in model.trained().values())


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_checkpoint_over_a_quantised_base_holds_what_is_trained_and_nothing_else(
    base: Path, tmp_path: Path, quantize: str
) -> None:
    engine = open_engine(base, quantize)
    engine.step([batch()])
    found = saved(engine, tmp_path)
    module = load_verified(found, STATES)["module"]
    assert set(module) == set(engine.model.trained())
    assert all(torch.equal(module[name], value) for name, value in engine.model.trained().items())
    assert (
        found.files[STATES].size_bytes <= trained_bytes(engine.model) + OVERHEAD_BYTES + NAMES_BYTES[quantize]
    )
    engine.close()


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_training_goes_on_from_it_bit_for_bit(base: Path, tmp_path: Path, quantize: str) -> None:
    engine = open_engine(base, quantize)
    for _ in range(3):
        engine.step([batch()])
    found = saved(engine, tmp_path)
    expected = [engine.step([batch()]).loss for _ in range(3)]
    engine.close()
    resumed = open_engine(base, quantize)
    assert resumed.step([batch()]).loss != expected[0]  # it begins elsewhere
    resumed.restore(found)
    assert [resumed.step([batch()]).loss for _ in range(3)] == expected
    resumed.close()


def test_control_deepspeeds_own_filter_leaves_the_frozen_quantisation_state(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_name_alone(module: AdaptedModel) -> dict[str, Any]:
        state = module.state_dict()
        for name, value in module.named_parameters():
            if not value.requires_grad:
                state.pop(name, None)
        return dict(state)

    engine = open_engine(base)
    engine.step([batch()])
    theirs = engine._deepspeed.module_state_dict(exclude_frozen_parameters=True)
    monkeypatch.setattr(files, "trained_state", by_name_alone)
    found = saved(engine, tmp_path)
    module = load_verified(found, STATES)["module"]
    assert set(module) == set(theirs)
    frozen = set(module) - set(engine.model.trained())
    assert len([name for name in frozen if name.endswith("absmax")]) >= 2 * 7
    assert found.files[STATES].size_bytes > trained_bytes(engine.model) + OVERHEAD_BYTES
    engine.close()
