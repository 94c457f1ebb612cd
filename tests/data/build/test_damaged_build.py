"""An interrupted build of which a file was damaged: named, and the result is right or says what it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load, save

from persianmind.data.build import state as state_module
from persianmind.data.build.job import QUARANTINE, BuildProgress
from persianmind.data.build.state import STATE, read_state
from persianmind.recipe import Recipe
from tests.data.helpers import build, files_of, make_recipe
from tests.support.log import logged


class _Stop(Exception):
    pass


def _stop(progress: BuildProgress) -> None:
    if progress.shards:
        raise _Stop


@pytest.fixture
def recipe(corpus: Path) -> Recipe:
    return make_recipe({"fa": {"uri": str(corpus)}}, data={"sequences_per_shard": 8})


@pytest.fixture
def cut(recipe: Recipe, bpe_dir: Path, tmp_path: Path) -> Path:
    """Interrupted after its first shards, with a bad record behind it."""
    with pytest.raises(_Stop):
        build(recipe, "fa", bpe_dir, tmp_path / "cut", _stop)
    return tmp_path / "cut"


@pytest.mark.parametrize("damage", ["turned", "missing"])
def test_a_damaged_shard_is_not_gone_on_from(
    recipe: Recipe, bpe_dir: Path, cut: Path, tmp_path: Path, damage: str
) -> None:
    shard = cut / "shard-000000.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    if damage == "missing":
        shard.unlink()
    with logged() as lines:
        build(recipe, "fa", bpe_dir, cut)
    assert any(str(shard) in line and "starts anew" in line for line in lines)
    build(recipe, "fa", bpe_dir, tmp_path / "whole")
    assert files_of(cut) == files_of(tmp_path / "whole")


def test_a_shortened_list_of_bad_records_is_said_and_not_filled_up(
    recipe: Recipe, bpe_dir: Path, cut: Path
) -> None:
    (cut / QUARANTINE).write_bytes((cut / QUARANTINE).read_bytes()[:20])
    with logged() as lines:
        build(recipe, "fa", bpe_dir, cut)
    assert any(f"{cut / QUARANTINE} lost" in line and "does not list all" in line for line in lines)
    assert b"\0" not in (cut / QUARANTINE).read_bytes()


def test_every_bad_record_is_a_json_line_with_its_checksum(recipe: Recipe, bpe_dir: Path, cut: Path) -> None:
    build(recipe, "fa", bpe_dir, cut)
    lines = [json.loads(line) for line in (cut / QUARANTINE).read_text(encoding="ascii").splitlines()]
    assert len(lines) == 2 and all({"file", "line", "reason", "sample", "crc"} == set(line) for line in lines)


def test_control_without_its_checksum_a_damaged_state_becomes_training_data(
    recipe: Recipe, bpe_dir: Path, cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = (cut / STATE).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    arrays = {name: array.copy() for name, array in load(raw).items()}
    arrays["open.tokens"][3] ^= 1
    (cut / STATE).write_bytes(save(arrays, metadata=header))
    assert read_state(cut) is None
    stated = json.loads(header["state"])["arrays_hash"]
    monkeypatch.setattr(state_module, "_hash_arrays", lambda arrays: stated)
    build(recipe, "fa", bpe_dir, cut)
    monkeypatch.undo()
    build(recipe, "fa", bpe_dir, tmp_path / "whole")
    assert files_of(cut) != files_of(tmp_path / "whole")
