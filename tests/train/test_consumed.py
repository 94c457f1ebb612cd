"""What a checkpoint says of its data, and which differences are refused, taken or of no matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from persianmind.checkpoint.group import SOLO
from persianmind.checkpoint.store import CheckpointStore
from persianmind.common.errors import ChangedDataError
from persianmind.data.manifest import ShardEntry
from persianmind.recipe.loading import load_recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import read_results
from persianmind.run.records import DataUse
from persianmind.train.consumed import compare_data, data_in_use, newest_data_in_use, refuse_other_sources
from persianmind.train.stages import plan_stages
from tests.support.log import logged

TINY = load_recipe("tiny")
PRINTS = {"source": "s", "tokenizer": "t", "options": "o"}


def entry(name: str) -> ShardEntry:
    return ShardEntry(file=name, sequences=8, tokens=8, bytes=8, hash=f"hash of {name}")


@dataclass
class FakeDataset:
    """Shards as known; `coming` are those that waiting brings."""

    shards: list[ShardEntry]
    num_sequences: int | None = None
    coming: list[ShardEntry] = field(default_factory=list)
    waits: int = 0

    def wait_for_shards(self, count: int, *, whole: bool) -> None:
        self.waits += len(self.shards) < count
        self.shards = [*self.shards, *self.coming]


def context(path: Path, **datasets: FakeDataset) -> Any:
    known = {name: datasets.get(name, FakeDataset([entry("a")], 8)) for name in TINY.sources}
    return SimpleNamespace(
        recipe=TINY,
        folder=RunFolder(path),
        prepared=SimpleNamespace(fingerprints={name: dict(PRINTS) for name in TINY.sources}),
        datasets=known,
        plans=plan_stages(TINY, {name: one.num_sequences for name, one in known.items()}),
        step=6,
        data_changes=[],
        is_main=True,
    )


def saved(of: Any, **changes: Any) -> Any:
    """The checkpoint of that run, of step 6."""
    data = {name: use.model_dump() for name, use in data_in_use(of).items()}
    return SimpleNamespace(step=6, metadata={"data": data, "data_changes": [], **changes})


def test_a_checkpoint_knows_the_sources_that_steps_were_trained_on(tmp_path: Path) -> None:
    one = context(tmp_path, poems=FakeDataset([entry("a"), entry("b")]))
    used = data_in_use(one)
    assert set(used) == {"poems", "messages", "english"}, "of the stage that is begun"
    assert (used["poems"].shards, used["poems"].whole) == (2, False)
    assert (used["english"].shards, used["english"].whole) == (1, True)
    assert used["poems"].hash != used["english"].hash and used["poems"].fingerprints == PRINTS
    one.step = 0
    assert data_in_use(one) == {}


def test_the_same_data_and_more_of_a_source_that_was_being_built_are_no_change(tmp_path: Path) -> None:
    checkpoint = saved(context(tmp_path, poems=FakeDataset([entry("a")])))
    later = context(tmp_path, poems=FakeDataset([entry("a"), entry("b")], 16))
    compare_data(later, checkpoint, SOLO, accept=False)
    assert later.data_changes == [] and not read_results(later.folder).data_changes


BEFORE = FakeDataset([entry("a"), entry("b")], 16)
OTHER = {
    "another shard": FakeDataset([entry("a"), entry("x")], 16),
    "fewer": FakeDataset([entry("a")], 8),
    "more of a whole source": FakeDataset([entry("a"), entry("b"), entry("c")], 24),
}


@pytest.mark.parametrize("now", OTHER.values(), ids=list(OTHER))
def test_other_shards_are_refused_or_taken_and_recorded(tmp_path: Path, now: FakeDataset) -> None:
    checkpoint = saved(context(tmp_path, poems=BEFORE))
    with pytest.raises(ChangedDataError) as refused:
        compare_data(context(tmp_path, poems=now), checkpoint, SOLO, accept=False)
    assert str(refused.value).startswith("sources.poems: other token shards, since the run was trained on it")
    assert "--accept-changed-data" in str(refused.value) and "\n" not in str(refused.value)
    assert not RunFolder(tmp_path).results.exists(), "nothing is written"
    taken = context(tmp_path, poems=now)
    with logged() as lines:
        compare_data(taken, checkpoint, SOLO, accept=True)
    assert [one.model_dump() for one in taken.data_changes] == [
        {"source": "poems", "step": 6, "what": "token shards"}
    ]
    assert read_results(taken.folder).data_changes == taken.data_changes
    assert any("sources.poems: other token shards" in line for line in lines)
    # From the checkpoint after it there is nothing to refuse any more, and the change stays known.
    again = context(tmp_path, poems=now)
    changes = [one.model_dump() for one in taken.data_changes]
    compare_data(again, saved(taken, data_changes=changes), SOLO, accept=False)
    assert again.data_changes == taken.data_changes


def test_deleted_shards_are_waited_for_where_a_stage_still_needs_them(tmp_path: Path) -> None:
    checkpoint = saved(context(tmp_path))
    rebuilt = FakeDataset([], None, coming=[entry("a")])
    compare_data(context(tmp_path, poems=rebuilt), checkpoint, SOLO, accept=False)
    assert rebuilt.waits == 1
    other = FakeDataset([], None, coming=[entry("x")])
    with pytest.raises(ChangedDataError):
        compare_data(context(tmp_path, poems=other), checkpoint, SOLO, accept=False)
    # Of a stage that is done nobody waits for them.
    late = context(tmp_path, poems=FakeDataset([], None))
    done = saved(context(tmp_path))
    done.step = late.step = 16
    compare_data(late, done, SOLO, accept=False)
    assert late.datasets["poems"].waits == 0


@pytest.mark.parametrize("name", PRINTS)
def test_another_source_tokenizer_or_option_is_known_before_anything_is_built(
    tmp_path: Path, name: str
) -> None:
    one = context(tmp_path)
    trained = data_in_use(one)
    now = {**one.prepared.fingerprints, "poems": {**PRINTS, name: "other"}}
    refuse_other_sources(6, trained, one.prepared.fingerprints)
    refuse_other_sources(6, trained, {**one.prepared.fingerprints, "interpret": {**PRINTS, name: "other"}})
    with pytest.raises(ChangedDataError, match=f"sources.poems: other {name}, since"):
        refuse_other_sources(6, trained, now)


def test_the_newest_checkpoint_is_asked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert newest_data_in_use(folder) == (0, {})
    store = CheckpointStore(folder.checkpoints, keep_last=2, keep_every_steps=None)
    use = DataUse(fingerprints=PRINTS, shards=1, hash="h", whole=True)
    store.save(3, {"data": {"poems": use.model_dump()}}, lambda place: (place / "a").write_text("x") and None)
    assert newest_data_in_use(folder) == (3, {"poems": use})
    store.save(4, {}, lambda place: (place / "a").write_text("x") and None)
    assert newest_data_in_use(folder) == (4, {}), "one that recorded none"
