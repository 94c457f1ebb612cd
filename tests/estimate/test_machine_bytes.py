"""Host memory and disk, by hand."""

from __future__ import annotations

from pathlib import Path

import torch

from persianmind.data.build.shards import Piece, write_shard
from persianmind.estimate.disk import disk_bytes, id_bytes, run_bytes
from persianmind.estimate.host import host_bytes
from persianmind.estimate.memory import checkpoint_bytes
from persianmind.estimate.static import flat_groups
from persianmind.recipe.loading import load_recipe
from tests.estimate.models import tiny_model


def test_a_run_of_the_reference_writes_what_its_recipe_says() -> None:
    recipe = load_recipe("persianmind-7b")
    found = disk_bytes(recipe, trained=1000, exported=2_000_000, vocab_size=41_510)
    steps = 15_259
    assert found.shards == steps * 131_072 * 2 and found.export == 4_000_000
    assert found.checkpoints == (3 + 1 + steps // 2000) * checkpoint_bytes(1000, "bf16")
    assert found.download == 2 * 6_738_415_616
    assert found.run == found.shards + found.checkpoints + found.export + found.logs


def test_a_shard_takes_so_much_per_token(tmp_path: Path) -> None:
    import numpy as np

    for vocab in (60_000, 70_000):
        sequences = [[Piece(np.arange(512, dtype=np.uint32))] for _ in range(64)]
        entry = write_shard(tmp_path, vocab, sequences, 512, vocab, 0)
        assert 0 <= entry.bytes / (64 * 512 * id_bytes(vocab)) - 1 < 0.03


def test_the_base_on_disk_counts_in_what_a_run_needs(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    recipe = load_recipe("tiny", [f"base={tmp_path}"])
    assert run_bytes(recipe) - run_bytes(load_recipe("tiny")) == 1000


def test_ranks_load_side_by_side_and_one_exports() -> None:
    with torch.device("meta"):
        model = tiny_model(False, "meta")
    recipe = load_recipe("tiny")
    one, four = (host_bytes(recipe, model, flat_groups(model, n), n, 110) for n in (1, 4))
    assert four.loading == 4 * one.loading and four.peak == max(four.loading, four.training, four.export)
    largest = 160 * 64  # of the MLP
    assert one.loading - 1_500_000_000 == largest * (2 + 4)
    no_export = load_recipe("tiny", ["export.enabled=false"])
    assert host_bytes(no_export, model, flat_groups(model, 1), 1, 110).export == 1_500_000_000
