"""The files of checkpoints that real runs wrote, damaged in every way: found, named, the older one used."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from persianmind.checkpoint import verify
from persianmind.checkpoint.manifest import MANIFEST, read_manifest
from persianmind.checkpoint.reading import load_tensors
from persianmind.common.errors import CheckpointError
from persianmind.engine.deepspeed.loading import load_verified
from tests.checkpoint.helpers import Trap, forge_manifest, newest, newest_and_log
from tests.faults.fleet import Fleet
from tests.faults.helpers import BARE, assert_same_run, count, is_long, prepared_copy
from tests.support.launch import Launched

pytestmark = pytest.mark.integration
FLIPS = 5000 if is_long() else 200
RATIOS = (0.0, 0.01, 0.5, 0.99)
BF16 = ("train.precision=bf16", "stages.0.tokens=3072", "stages.1.tokens=1024", "stages.2.tokens=1024")


@pytest.fixture(scope="module")
def sources(fleet: Fleet, tiny_run: Launched, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders with two checkpoints each, of two ranks: fp32 and bf16."""
    run = prepared_copy(tiny_run.run, tmp_path_factory.mktemp("bf16") / "run", *BF16)
    done = fleet.run(run, *BARE, *BF16, "checkpoint.every_steps=2")
    assert done.code == 0, done.text
    return {"fp32": tiny_run.run, "bf16": run}


class Copies:
    """Copies of a run's checkpoints to damage; `newest` and `older` are the two folders."""

    def __init__(self, source: Path, place: Path) -> None:
        self._source, self._place, self._made = source / "checkpoints", place, 0

    def fresh(self) -> Path:
        self._made += 1
        self.root = self._place / str(self._made)
        shutil.copytree(self._source, self.root)
        by_age = sorted(self.root.glob("step-*"), key=lambda folder: read_manifest(folder).sequence)
        self.older, self.newest = by_age
        return self.newest

    @property
    def names(self) -> list[str]:
        """Files of the newest, the manifest last."""
        return [*read_manifest(self.fresh()).files, MANIFEST]

    def assert_older_used(self, named: str) -> None:
        """A resume finds the damage, names the file and takes the older one."""
        found, lines = newest_and_log(self.root)
        assert found is not None and found.path == self.older, lines
        assert self.newest.name in lines[0] and named in lines[0], (named, lines)
        assert "resuming from the older checkpoint" in lines[1]


@pytest.mark.more
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_file_cut(sources: dict[str, Path], tmp_path: Path, precision: str) -> None:
    copies = Copies(sources[precision], tmp_path)
    names = copies.names
    assert len(names) == 6
    for name in names:
        for ratio in RATIOS:
            path = copies.fresh() / name
            os.truncate(path, int(path.stat().st_size * ratio))
            copies.assert_older_used(name)
            count("each checkpoint file cut at 0, 1, 50 and 99%", 1, 1)


@pytest.mark.more
def test_single_bit_flips(sources: dict[str, Path], tmp_path: Path) -> None:
    """Anywhere in the newest checkpoint, by size; the file is named every time."""
    folder = Copies(sources["fp32"], tmp_path).fresh()
    draw, found = random.Random(7), 0
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    sizes = [(folder / name).stat().st_size for name in names]
    for _ in range(FLIPS):
        index = draw.choices(range(len(names)), weights=sizes)[0]
        place, bit = draw.randrange(sizes[index]), 1 << draw.randrange(8)
        _flip(folder / names[index], place, bit)
        found += any(names[index] in problem for problem in verify.examine_checkpoint(folder)[1])
        _flip(folder / names[index], place, bit)
    assert verify.examine_checkpoint(folder)[1] == []
    count("single bit flips", found, FLIPS)
    assert found == FLIPS


def _flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as handle:
        handle.seek(place)
        (byte,) = handle.read(1)
        handle.seek(place)
        handle.write(bytes([byte ^ bit]))


@pytest.mark.more
def test_control_without_hashing_flips_and_swaps_pass(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "content_damage", lambda *_: [])
    folder = Copies(sources["fp32"], tmp_path).fresh()
    _flip(folder / "deepspeed/mp_rank_00_model_states.pt", 1000, 4)
    _swap(folder / "rng-rank-0.safetensors", folder / "rng-rank-1.safetensors")
    assert verify.examine_checkpoint(folder)[1] == []


def _swap(one: Path, other: Path) -> None:
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def _link(path: Path, target: Path) -> None:
    path.rename(target)
    path.symlink_to(target)


def structure(copies: Copies, names: list[str]) -> list[tuple[Callable[[], object], str]]:
    """20 ways in which the set of files may be wrong, and the file to be named."""
    model, shard_0, shard_1, rng_0, rng_1 = names[:5]

    def at(name: str) -> Path:
        return copies.newest / name

    def foreign(name: str) -> Callable[[], object]:
        return lambda: shutil.copyfile(copies.older / name, at(name))

    return [
        *[(lambda name=name: at(name).unlink(), name) for name in names],
        # Random states of two steps are the same bytes: this recipe draws no number.
        *[(foreign(name), name) for name in (model, shard_0, shard_1, MANIFEST)],
        (lambda: _swap(at(shard_0), at(shard_1)), shard_0),
        (lambda: _swap(at(rng_0), at(rng_1)), rng_0),
        (lambda: at(shard_0).rename(at("deepspeed/zero_pp_rank_7_mp_rank_00_optim_states.pt")), shard_0),
        (
            lambda: shutil.copyfile(at(shard_1), at("deepspeed/zero_pp_rank_2_mp_rank_00_optim_states.pt")),
            "rank_2",
        ),
        (lambda: at("extra.pt").write_bytes(b"x"), "extra.pt"),
        (lambda: at("deepspeed/.hidden").write_bytes(b""), ".hidden"),
        (lambda: os.mkfifo(at("pipe")), "pipe"),
        (lambda: _swap(at(model), at(shard_0)), model),
        (lambda: at(rng_0).write_bytes(at(rng_0).read_bytes() + b"\0"), rng_0),
        (lambda: (at(rng_1).unlink(), at(rng_1).mkdir()), rng_1),
    ]


@pytest.mark.more
def test_missing_extra_swapped_and_foreign(sources: dict[str, Path], tmp_path: Path) -> None:
    copies = Copies(sources["fp32"], tmp_path)
    names = copies.names
    cases = structure(copies, names)
    assert len(cases) == 20
    for damage, named in cases:
        copies.fresh()
        damage()
        # A manifest of another checkpoint makes every other file the wrong one.
        copies.assert_older_used(named if named != MANIFEST else copies.newest.name)
        count("shard missing, extra, swapped, foreign", 1, 1)


@pytest.mark.more
def test_a_malicious_pickle_in_each_slot_never_runs(sources: dict[str, Path], tmp_path: Path) -> None:
    copies, sprung = Copies(sources["fp32"], tmp_path / "copies"), tmp_path / "sprung"
    for name in copies.names:
        path = copies.fresh() / name
        if path.suffix == ".pt":
            torch.save({"module": Trap(sprung)}, path)
        else:
            path.write_bytes(pickle.dumps(Trap(sprung)))
        copies.assert_older_used(name)
        if name != MANIFEST:  # and with a manifest that lists it
            load = load_verified if path.suffix == ".pt" else load_tensors
            with pytest.raises(CheckpointError, match="was not loaded"):
                load(forge_manifest(copies.newest), name)
        count(SECURITY, 1, 1)
    assert not sprung.exists()


SECURITY = "malicious pickle in each file, latest = ../../x, symlinked shard"


@pytest.mark.more
def test_no_path_leads_outside(sources: dict[str, Path], tmp_path: Path) -> None:
    copies = Copies(sources["fp32"], tmp_path / "copies")
    for pointer in (json.dumps({"folder": "../../x"}), json.dumps({"folder": "/etc"})):
        copies.fresh()
        (copies.root / "latest.json").write_text(pointer)
        assert newest(copies.root).path == copies.newest
        count(SECURITY, 1, 1)
    shard = read_manifest(copies.fresh()).path / "deepspeed/zero_pp_rank_1_mp_rank_00_optim_states.pt"
    _link(shard, tmp_path / "same-bytes.pt")
    copies.assert_older_used("symbolic link")
    copies.fresh()
    _link(copies.newest, tmp_path / "elsewhere")
    copies.assert_older_used("symbolic link")
    count(SECURITY, 2, 2)


@pytest.mark.more
def test_a_real_run_names_the_damage_and_goes_on_from_the_older_one(
    fleet: Fleet, fresh: Path, tiny_run: Launched, tmp_path: Path
) -> None:
    """And ends with exit code 5, the trap not sprung, where an attacker forged the only checkpoint."""
    assert fleet.run(fresh, *BARE, fault="kill:0:11").code != 0  # checkpoints of steps 4 and 8
    shard = "deepspeed/zero_pp_rank_1_mp_rank_00_optim_states.pt"
    os.truncate(fresh / "checkpoints" / "step-8" / shard, 5000)
    trapped = tmp_path / "trapped"
    shutil.copytree(fresh, trapped)
    again = fleet.run(fresh, *BARE)
    assert again.code == 0, again.text
    assert f"step-8/{shard}: has 5000 bytes" in again.text and "at step 4\n" in again.text
    assert_same_run(again, tiny_run)
    shutil.rmtree(trapped / "checkpoints" / "step-8")
    sprung = tmp_path / "sprung"
    torch.save({"module": Trap(sprung)}, trapped / "checkpoints" / "step-4" / shard)
    forge_manifest(trapped / "checkpoints" / "step-4")
    refused = fleet.run(trapped, *BARE)
    assert set(refused.codes) == {5}, refused.text
    assert f"rank 1: {trapped}" in refused.errors[0] and "was not loaded: Trying to load" in refused.errors[0]
    assert "weights_only" not in refused.text  # torch's advice would be to run it
    assert not sprung.exists()
