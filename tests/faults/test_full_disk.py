"""A full disk at every place that writes: each ends with one line that names its file, or is left out and
said; nothing half-written stays, and with room the same call goes through. Saves: test_disk.py; that there is
no other place: tests/test_writers.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from persianmind.common import disk
from persianmind.common.atomic import atomic_dir
from persianmind.common.errors import DiskError
from persianmind.data.build.priority import BuildOrder
from persianmind.data.build.service import BackgroundBuild
from persianmind.data.read.incremental import write_failure
from persianmind.energy.meter.lines import LedgerWriter
from persianmind.evaluate.item_files import ItemFile
from persianmind.language.persian import PROFILE
from persianmind.model.adapted import build_adapted
from persianmind.model.bases import resolve_base
from persianmind.model.export.adapter import write_adapter
from persianmind.model.export.gguf.write import export_gguf
from persianmind.model.export.source import FolderTensors
from persianmind.model.export.trained import TrainedWeights
from persianmind.model.export.writer import write_weights
from persianmind.publish.manifest import write_export_manifest
from persianmind.recipe.loading import load_recipe
from persianmind.report.page import write_report
from persianmind.run.energy_records import EnergyNote
from persianmind.run.folder import RunFolder, RunLock
from persianmind.run.log import RunLog, update_results
from persianmind.run.records import Prepared
from persianmind.text.heldout import write_held_out
from persianmind.text.quarantine import Quarantine
from persianmind.text.record import Rejected
from persianmind.train.gpu_errors import keep_traceback
from persianmind.train.heartbeats import heartbeat_path
from persianmind.train.preparation import watched_preparation
from persianmind.vocab.build import build_vocab
from tests.data.helpers import build, make_bpe, make_job, make_recipe, sentences, write_jsonl
from tests.model.helpers import BASE_VOCAB, PIECES, make_base
from tests.model.helpers import make_recipe as make_model_recipe
from tests.run.helpers import step_record
from tests.support.exports import hand_made_export
from tests.support.full_disk import full_disk
from tests.vocab.helpers import texts

Call = Callable[[], object]


# --- places: each prepares what it needs in a folder and returns (what writes, the file it names) ----------
def recipe_yaml(folder: Path) -> tuple[Call, Path]:
    run = RunFolder(folder)
    return lambda: run.claim(load_recipe("tiny")), run.recipe


def lock(folder: Path) -> tuple[Call, Path]:
    def take() -> None:
        with RunLock(RunFolder(folder)):
            pass

    return take, folder / ".lock"


def held_out(folder: Path) -> tuple[Call, Path]:
    run = RunFolder(folder)
    return lambda: write_held_out(load_recipe("tiny"), run.heldout), run.heldout


def vocabulary(folder: Path) -> tuple[Call, Path]:
    base, out = resolve_base("random://llama"), RunFolder(folder).vocab
    return lambda: build_vocab(base, texts, out, new_tokens=20, profile=PROFILE), out


def prepared(folder: Path) -> tuple[Call, Path]:
    from persianmind.common.checksum import write_checked

    run = RunFolder(folder)
    found = Prepared(base_fingerprint="", tokenizer_fingerprint="", sequences_by_source={}, fingerprints={})
    return lambda: write_checked(run.prepared, found.model_dump(mode="json")), run.prepared


def metrics(folder: Path) -> tuple[Call, Path]:
    run = RunFolder(folder)
    return lambda: RunLog(run, active=True).append(step_record(1)), run.metrics


def discarded_metrics(folder: Path) -> tuple[Call, Path]:
    run = RunFolder(folder)
    RunLog(run, active=True).append(step_record(9))
    return lambda: RunLog(run, active=True).rewind(1), run.discarded_metrics


def results(folder: Path) -> tuple[Call, Path]:
    run = RunFolder(folder)
    return lambda: update_results(run, finished=True), run.results


def report(folder: Path) -> tuple[Call, Path]:
    run = RunFolder(folder)
    run.claim(load_recipe("tiny"))
    return lambda: write_report(folder), run.report


def shards(folder: Path) -> tuple[Call, Path]:
    texts_file = write_jsonl(folder.parent / "fa.jsonl", [{"text": text} for text in sentences(200)])
    recipe, bpe = make_recipe({"fa": {"uri": str(texts_file)}}), make_bpe(folder.parent / "bpe")
    return lambda: build(recipe, "fa", bpe, folder / "fa"), folder / "fa"


def quarantine(folder: Path) -> tuple[Call, Path]:
    path = folder / "quarantine.jsonl"

    def reject() -> None:
        one = Quarantine(path)
        one.reject(Rejected("a.jsonl", 1, "null_text", "x" * 100))
        one.close()

    return reject, path


def failure(folder: Path) -> tuple[Call, Path]:
    return lambda: write_failure(folder, "why"), folder / "failed.json"


def builder(folder: Path) -> tuple[Call, Path]:
    texts_file = write_jsonl(folder.parent / "fa.jsonl", [{"text": text} for text in sentences(20)])
    recipe, bpe = make_recipe({"fa": {"uri": str(texts_file)}}), make_bpe(folder.parent / "bpe")
    job = make_job(recipe, "fa", bpe, folder / "fa")
    order = BuildOrder(block_sequences=1, window=1, stages=[])

    def start() -> None:
        BackgroundBuild([job], order, folder / "builder.log").end()

    return start, folder / "builder.json"


def item(folder: Path) -> tuple[Call, Path]:
    one = ItemFile(folder / "task.jsonl", "key")
    return lambda: one.append({"item": 1, "text": "x" * 100}), folder / "task.jsonl.part-0"


def items(folder: Path) -> tuple[Call, Path]:
    one = ItemFile(folder / "task.jsonl", "key")
    return lambda: one.finish([{"item": 1, "text": "x" * 100}]), folder / "task.jsonl"


def ledger(folder: Path) -> tuple[Call, Path]:
    path = folder / "box.jsonl"

    def write() -> None:
        LedgerWriter(path, node="box", attempt="1").write(EnergyNote, missing=True, message="x" * 100)

    return write, path


def merged(folder: Path) -> tuple[Call, Path]:
    base, out = make_base(folder.parent / "base", "llama", tied=False), folder / "export"

    def write() -> None:
        with atomic_dir(out) as temporary:
            write_weights(temporary, FolderTensors(base), torch.float32)

    return write, out


def adapter(folder: Path) -> tuple[Call, Path]:
    base, out = make_base(folder.parent / "base", "llama", tied=False), folder / "export"
    recipe = make_model_recipe()
    weights = TrainedWeights.of(build_adapted(base, recipe, PIECES, BASE_VOCAB), recipe.adapter)

    def write() -> None:
        with atomic_dir(out) as temporary:
            write_adapter(temporary, base, weights, base_name=None)

    return write, out


def gguf(folder: Path) -> tuple[Call, Path]:
    source = hand_made_export(folder.parent / "hf")
    out = folder / "model.gguf"
    return lambda: export_gguf(source, out, dtype="f16", pre_tokenizer="gpt-2"), out


def manifest(folder: Path) -> tuple[Call, Path]:
    from persianmind.publish.manifest import MANIFEST

    (folder / "a").touch()

    def write() -> None:
        write_export_manifest(
            folder, kind="hf", adapter_scale=1.0, check=None, recipe="r", step=1, stage="s",
            base_fingerprint="", tokenizer_fingerprint="", languages=["fa"], normalise={}, profiles={},
        )  # fmt: skip

    return write, folder / MANIFEST


PLACES = (
    recipe_yaml, lock, held_out, vocabulary, prepared, metrics, discarded_metrics, results, report, shards,
    quarantine, failure, builder, item, items, ledger, merged, adapter, gguf, manifest,
)  # fmt: skip


def _written(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size
    }


@pytest.mark.parametrize("place", PLACES, ids=[one.__name__ for one in PLACES])
def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    tmp_path: Path, place: Callable[[Path], tuple[Call, Path]]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write, named = place(folder)
    before = _written(folder)
    with full_disk(20), pytest.raises(DiskError) as caught:
        write()
    line = str(caught.value)
    assert line.startswith(str(named)) and "\n" not in line, line
    assert "file too large; make room" in line and "give the same command again" in line
    assert _written(folder) == before
    write()  # the control: with room it goes through
    assert _written(folder) != before or place is lock


@pytest.mark.parametrize("place", [merged, metrics, vocabulary])
def test_control_without_the_naming_it_would_be_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[Path], tuple[Call, Path]]
) -> None:
    (tmp_path / "run").mkdir()
    write, _ = place(tmp_path / "run")
    monkeypatch.setattr(disk, "_error", lambda *_: RuntimeError("unnamed"))
    with full_disk(20), pytest.raises(RuntimeError, match="unnamed"):
        write()


# --- what is left out instead ------------------------------------------------------------------------------
def test_tensorboard_is_said_once_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(tmp_path)
    log = RunLog(run, active=True)
    log.append(step_record(1))
    (events,) = run.tensorboard.iterdir()
    size_bytes = events.stat().st_size
    assert run.metrics.stat().st_size > size_bytes, "or the limit below would hit it too"
    os.truncate(run.metrics, 0)
    with full_disk(size_bytes + 10):
        events.write_bytes(events.read_bytes().ljust(size_bytes + 10))
    with full_disk(size_bytes + 10):
        for step in (2, 3):
            log._events.log(step, {"loss": 1.0})
    log.append(step_record(4))
    lines = [line for line in caplog.messages if "TensorBoard" in line]
    assert len(lines) == 1 and "left out from step 2 on" in lines[0] and str(events) in lines[0]
    assert events.stat().st_size == size_bytes + 10 and run.metrics.stat().st_size


def test_the_ledger_waits_in_memory_and_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "box.jsonl", node="box", attempt="1")
    with full_disk(20):
        for number in range(3):
            with pytest.raises(DiskError):
                writer.write(EnergyNote, missing=False, message=f"note {number}")
    assert not _written(tmp_path) and len(writer.unwritten) == 3
    writer.write(EnergyNote, missing=False, message="note 3")
    lines = (tmp_path / "box.jsonl").read_text().splitlines()
    assert [line.count(f"note {number}") for number, line in enumerate(lines)] == [1] * 4


def test_heartbeats_tracebacks_and_the_log_end_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from persianmind.common.log import LineHandler
    from persianmind.engine.ranks import Ranks

    run = RunFolder(tmp_path)
    with full_disk(), watched_preparation(run, Ranks(0, 1, 0, 1), 5.0, ()):
        keep_traceback(ValueError("x"), run, 0)
        record = logging.LogRecord("persianmind", logging.INFO, "", 0, "a line", None, None)
        LineHandler(0).emit(record)
    assert not _written(tmp_path)
    assert heartbeat_path(run.heartbeats, 0).parent.is_dir()
