"""metrics.jsonl and results.json: each step once, nothing lost, damage named; any JSON reader reads both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persianmind.common.checksum import dump_checked_line
from persianmind.common.errors import DamagedFileError
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.folder import RunFolder
from persianmind.run.log import (
    RunLog,
    add_evaluation,
    add_samples,
    read_metrics,
    read_results,
    read_steps,
    update_results,
)
from persianmind.run.records import RunResults, SampleText, SkipReason, StepRecord
from tests.run.helpers import step_record
from tests.support.log import logged


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def result(stage: str, language: str, bits: float) -> EvaluationResult:
    return EvaluationResult(
        stage=stage,
        language=language,
        bits_per_byte=bits,
        perplexity=2.0,
        n_tokens=1,
        n_documents=1,
        n_bytes=1,
    )


def test_a_line_per_step_as_any_json_reader_sees_it(folder: RunFolder) -> None:
    log = RunLog(folder, active=True)
    records = [
        step_record(1),
        step_record(2, loss=None, loss_hex="nan", skipped=True, skip_reason="nonfinite"),
    ]
    for record in records:
        log.append(record)
    log.flush()
    log.close()
    lines = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
    contract = {"stage", "step", "loss", "loss_hex", "tokens", "tokens_per_s", "crc"}
    assert all(contract <= set(line) for line in lines)
    assert [line["skip_reason"] for line in lines] == [None, "nonfinite"]
    assert list(read_steps(folder)) == records
    assert list(read_steps(folder))[1].skip_reason is SkipReason.NONFINITE
    assert list(folder.tensorboard.glob("events*"))


def test_other_ranks_write_nothing(folder: RunFolder) -> None:
    log = RunLog(folder, active=False)
    log.append(step_record(1))
    log.flush()
    log.close()
    assert list(folder.path.iterdir()) == []


def test_every_changed_bit_of_a_line_drops_that_line_alone(folder: RunFolder) -> None:
    lines = [dump_checked_line(step_record(step).model_dump(mode="json")) for step in (1, 2, 3)]
    raw = lines[1].encode("utf-8")
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        folder.metrics.write_bytes(b"\n".join([lines[0].encode(), changed, lines[2].encode()]) + b"\n")
        assert [record.step for record in read_steps(folder)] == [1, 3], changed


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        ((1, 2, 3), ""),
        ((1, 3), "1 missing"),
        ((1, 2, 2, 3), "1 twice in it"),
        ((1, None, 3), "1 damaged, 1 missing"),
    ],
)
def test_lines_that_are_left_out_lost_or_twice_are_counted_and_said(
    folder: RunFolder, order: tuple[int | None, ...], problem: str
) -> None:
    lines = {n: dump_checked_line(step_record(n).model_dump(mode="json")) for n in (1, 2, 3)}
    folder.metrics.write_text("".join(lines.get(n or 0, "{torn") + "\n" for n in order))
    with logged() as said:
        steps = read_steps(folder)
    assert [record.step for record in steps] == sorted({n for n in order if n})
    assert said == ([f"{folder}: metrics.jsonl: of its lines {problem}"] if problem else [])
    assert read_metrics(folder, last_step=4).problem.endswith("missing"), "the end can be lost as well"


def test_rewind_keeps_each_step_once_and_loses_no_line(folder: RunFolder) -> None:
    lines = [dump_checked_line(step_record(step).model_dump(mode="json")) for step in (1, 2, 3, 4)]
    torn = '{"step": 5, "lo'
    folder.metrics.write_text("\n".join([*lines, torn]), encoding="utf-8")
    RunLog(folder, active=False).rewind(2)
    assert len(folder.metrics.read_text().splitlines()) == 5
    RunLog(folder, active=True).rewind(2)
    assert folder.metrics.read_text().splitlines() == lines[:2]
    assert folder.discarded_metrics.read_text().splitlines() == [*lines[2:], torn]


def test_a_damaged_line_before_the_checkpoint_is_set_aside_not_kept(folder: RunFolder) -> None:
    lines = [dump_checked_line(step_record(step).model_dump(mode="json")) for step in (1, 2)]
    damaged = lines[0].replace('"step": 1', '"step": 9', 1)
    folder.metrics.write_text("\n".join([damaged, lines[1]]) + "\n", encoding="utf-8")
    RunLog(folder, active=True).rewind(2)
    assert folder.metrics.read_text().splitlines() == lines[1:]
    assert folder.discarded_metrics.read_text().splitlines() == [damaged]


def test_results_of_a_stage_are_replaced_in_the_order_they_come(folder: RunFolder) -> None:
    assert read_results(folder) == RunResults()
    add_evaluation(folder, [result("base", "fa", 2.0), result("base", "en", 1.0)])
    add_evaluation(folder, [result("one", "fa", 1.5)])
    add_evaluation(folder, [result("one", "fa", 1.4)])
    update_results(folder, finished=True)
    results = read_results(folder)
    assert [(one.stage, one.language, one.bits_per_byte) for one in results.evaluation] == [
        ("base", "fa", 2.0),
        ("base", "en", 1.0),
        ("one", "fa", 1.4),
    ]
    assert results.finished is True
    plain: dict[str, Any] = json.loads(folder.results.read_text(encoding="utf-8"))
    assert list(plain)[-1] == "checksum" and plain["evaluation"][2]["bits_per_byte"] == 1.4


def test_samples_of_a_stage_replace_its_earlier_ones(folder: RunFolder) -> None:
    for stage, text in (("base", "a"), ("one", "b"), ("one", "c")):
        add_samples(folder, [SampleText(prompt="p", text=text, stage=stage)])
    add_evaluation(folder, [result("base", "fa", 2.0)])
    results = read_results(folder)
    assert [(one.stage, one.text) for one in results.samples] == [("base", "a"), ("one", "c")]
    assert len(results.evaluation) == 1


def test_damage_of_the_results_is_named_not_overwritten(folder: RunFolder) -> None:
    update_results(folder, finished=True)
    raw = bytearray(folder.results.read_bytes())
    for at in range(len(raw)):
        raw[at] ^= 1
        folder.results.write_bytes(bytes(raw))
        with pytest.raises(DamagedFileError, match=r"results\.json is damaged"):
            update_results(folder, finished=False)
        raw[at] ^= 1
    folder.results.write_bytes(bytes(raw))
    assert read_results(folder).finished


def test_a_line_of_another_version_may_have_more_keys_but_none_less() -> None:
    from persianmind.run.records import parse_record

    values = step_record(1).model_dump(mode="json")
    assert parse_record(dump_checked_line({**values, "later": 1}), StepRecord) == step_record(1)
    del values["loss_hex"]
    assert parse_record(dump_checked_line(values), StepRecord) is None
