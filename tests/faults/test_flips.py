"""Single bits turned in every kind of file that is read again: named, counted, or without any effect.

Lines that are lost or stand twice, and files that are cut, go the same way.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.checksum import dump_checked_line, write_checked
from persianmind.common.errors import PersianMindError
from persianmind.data.build import pipeline
from persianmind.data.build.builder import build_source
from persianmind.data.read.incremental import write_failure
from persianmind.evaluate.item_files import ItemFile
from persianmind.model import made_bases
from persianmind.run.folder import RunFolder
from persianmind.run.records import Heartbeat
from tests.data.helpers import make_bpe, make_job, make_recipe, sentences, write_jsonl
from tests.data.read.helpers import build_part
from tests.faults.flips import KINDS, Ground, Kind
from tests.faults.helpers import count, is_long
from tests.support.launch import Launched
from tests.support.log import logged

pytestmark = pytest.mark.integration
SEED = random.SystemRandom().randrange(10**9)
FLIPS_PER_KIND = -(-500 // len(KINDS)) if is_long() else 4
RATIOS = (0.0, 0.5, 0.99) if is_long() else (0.5,)
BY_NAME = {kind.name: kind for kind in KINDS}
kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


class Outcome(StrEnum):
    """What became of a flip."""

    NAMED = "named"
    SAID = "said in the log"
    SAME = "without effect"
    SILENT = "silent"


@pytest.fixture(scope="module")
def ground(tiny_run: Launched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Copies, and beside what a tiny run leaves what only other runs have, by the product's own writers."""
    place = tmp_path_factory.mktemp("flips")
    shutil.copytree(tiny_run.run, place / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "BATCH_RECORDS", 40)
        patch.setenv(made_bases.CACHE, str(place / "run"))
        yield _complete(Ground(RunFolder(place / "run"), *_interrupted_build(place)))


def _interrupted_build(place: Path) -> tuple[Path, Any, Path]:
    records: list[dict[str, Any]] = [{"text": one} for one in sentences(300)]
    text = write_jsonl(place / "text.jsonl", [*records[:9], *[{"text": None}] * 4, *records[9:]])
    recipe = make_recipe({"fa": {"uri": str(text)}}, data={"sequences_per_shard": 8})
    tokenizer = make_bpe(place / "bpe")
    build_part(recipe, "fa", tokenizer, place, 3, place / "heldout")
    build_source(make_job(recipe, "fa", tokenizer, place / "done", place / "heldout"))
    return place / "fa", recipe, tokenizer


def _complete(ground: Ground) -> Ground:
    run = ground.run
    ground.failed.mkdir()
    write_failure(ground.failed, "sources.fa: 7 of 9 records are bad")
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    run.discarded_metrics.write_bytes(b"".join(lines[-3:]))
    write_checked(run.base_documents("fa"), {"language": "fa", "nats": [1.5, 2.25]})
    items = ItemFile(run.evaluation / "items" / "one.jsonl", "key")
    (run.evaluation / "items").mkdir()
    items.finish({"item": item, "loss": 0.5 * item} for item in range(9))
    write_checked(run.power_limits, {"limits": [{"index": 0, "watts": 280.0}]})
    run.heartbeats.mkdir(exist_ok=True)
    beat = Heartbeat(tick=3, pid=7, node="a", beats=5, where="loop.py:1 step", waits=False)
    (run.heartbeats / "rank-0.json").write_text(dump_checked_line(beat.model_dump()))
    base = made_bases.made_once("random", lambda folder: _make_base(folder))
    assert base.parent.parent == run.path
    return ground


def _make_base(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)


def outcome(kind: Kind, ground: Ground, path: Path, damaged: bytes) -> Outcome:
    """Of a damaged file; the file is put back. What is no error of ours is raised: a traceback."""
    good, whole = path.read_bytes(), kind.read_quietly(ground, path)
    path.write_bytes(damaged)
    try:
        with logged() as lines:
            found = kind.read(ground, path)
    except PersianMindError as error:
        named = path.name in str(error) or str(path.parent) in str(error)
        return Outcome.NAMED if named else Outcome.SILENT
    finally:
        path.write_bytes(good)
    if any(path.name in line for line in lines):
        return Outcome.SAID
    return Outcome.SAME if found == whole else Outcome.SILENT


def flipped(path: Path, draw: random.Random) -> bytes:
    damaged = bytearray(path.read_bytes())
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def flips(kind: Kind, ground: Ground, draw: random.Random, many: int) -> Iterator[tuple[Path, Outcome]]:
    files = kind.files(ground)
    assert files, f"no {kind.name} there"
    for _ in range(many):
        path = draw.choice(files)
        yield path, outcome(kind, ground, path, flipped(path, draw))


@kinds
def test_a_turned_bit_is_never_silent(ground: Ground, kind: Kind) -> None:
    print(f"seed {SEED}")
    found = list(flips(kind, ground, random.Random(f"{SEED} {kind.name}"), FLIPS_PER_KIND))
    silent = [str(path) for path, one in found if one is Outcome.SILENT]
    count(f"flips: {kind.name}", len(found) - len(silent), len(found))
    assert not silent, f"seed {SEED}"


@kinds
def test_a_file_that_was_cut_is_never_silent(ground: Ground, kind: Kind) -> None:
    for path in kind.files(ground)[:3]:
        raw = path.read_bytes()
        for ratio in RATIOS:
            found = outcome(kind, ground, path, raw[: int(len(raw) * ratio)])
            assert found is not Outcome.SILENT, (path, ratio)
            count("files cut, of every kind", 1, 1)


def _lost(lines: list[bytes]) -> list[bytes]:
    return lines[:1] + lines[2:]


def _twice(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], *lines[1:]]


@pytest.mark.parametrize("change", [_lost, _twice])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.lines], ids=lambda kind: kind.name)
def test_a_line_that_is_lost_or_stands_twice(
    ground: Ground, kind: Kind, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    for path in kind.files(ground)[:2]:
        lines = path.read_bytes().splitlines(keepends=True)
        assert len(lines) > 2, path
        assert outcome(kind, ground, path, b"".join(change(lines))) is not Outcome.SILENT, path
        count("lines lost or twice", 1, 1)


def _unchecked(path: Path, fix: str = "") -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(path.read_bytes())
    tree.pop("checksum", None)
    return tree


def _unchecked_line(line: bytes | str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    record.pop("crc", None)
    return record


CONTROLS: dict[str, dict[str, Callable[..., Any]]] = {
    "results.json": {"run.log.read_checked": _unchecked},
    "data manifest": {"data.manifest.read_checked": _unchecked},
    "metrics.jsonl": {"run.records.parse_checked_line": _unchecked_line},
    "energy ledger": {"energy.ledger.parse_checked_line": _unchecked_line},
    "records of items": {"evaluate.item_files.parse_checked_line": _unchecked_line},
    "recipe.yaml": {"recipe.loading.read_checked_text": lambda path, fix: path.read_text()},
    "token shards": {
        "data.read.shard._is_as_written": lambda raw, entry: True,
        "data.read.shard._hash": lambda *parts: 0,
    },
}


@pytest.mark.parametrize("name", CONTROLS)
def test_control_without_checksums_bits_turn_in_silence(
    ground: Ground, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = BY_NAME[name]
    for place, instead in CONTROLS[name].items():
        monkeypatch.setattr(f"persianmind.{place}", instead)
    draw, found = random.Random(11), []
    for path in [draw.choice(kind.files(ground)) for _ in range(60)]:
        with contextlib.suppress(Exception):  # what has no checksum may also end in a traceback
            found.append(outcome(kind, ground, path, flipped(path, draw)))
        if Outcome.SILENT in found:
            return
    pytest.fail(f"all of {len(found)} were noticed")
