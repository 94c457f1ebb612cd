from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from persianmind.common.checksum import dump_checked_line
from persianmind.energy.co2.published import co2_g
from persianmind.energy.ledger import Ledger, read_ledger
from persianmind.energy.summary import summarise
from persianmind.energy.waste import lost_ratios
from persianmind.recipe import Energy
from persianmind.run.energy_records import EnergyNote, EnergySample
from persianmind.run.folder import RunFolder
from persianmind.run.records import Phase
from tests.energy.ledgers import MORNING, sample, start, stop, write

KWH = 3_600_000.0
LATER = "2026-03-01T08:00:00+00:00"
PAPER = Energy(pue=1.4, intensity_g_per_kwh=494)


def paper_run(run: Path) -> Path:
    """The paper's run as a ledger: 4 GPUs at 350 W for 240 hours, so 960 GPU-hours."""
    joules = {f"gpu{i}": 350.0 * 3600 for i in range(4)}
    lines = [start("a", "tehran")]
    lines += [sample("a", "tehran", "pretrain", (h + 1, h + 1), joules, seconds=3600) for h in range(240)]
    write(run, "tehran", [*lines, stop("a", "tehran")])
    return run


def test_the_papers_figure_comes_out_of_the_same_code_path(tmp_path: Path) -> None:
    summary = summarise(read_ledger(RunFolder(paper_run(tmp_path))), PAPER)
    assert summary["kwh"] == pytest.approx(336.0)
    assert summary["co2_g"] == pytest.approx(232_380, rel=1e-4)  # the model card's figure
    assert summary["measured_ratio"] == 1.0
    assert summary["comparison"][0]["gpu_hours"] == pytest.approx(960)
    assert summary["comparison"][1]["recomputed_co2_g"] == pytest.approx(232_380, rel=1e-4)
    # At a tenth of the other runs' hours and less nothing is to be compared.
    assert [row["name"] for row in summary["comparison"]] == ["this run", "PersianMind 7B (adaptation)"]


def test_a_run_of_no_comparable_scale_stands_beside_no_published_one(tmp_path: Path) -> None:
    write(tmp_path, "a", [sample("1", "a", "pretrain", (1, 1), {"gpu0": 3.6e6}, seconds=3600)])
    assert summarise(read_ledger(RunFolder(tmp_path)), PAPER)["comparison"] == []


def test_the_countrys_own_figure_is_shown_beside_an_intensity_that_is_stated(tmp_path: Path) -> None:
    options = PAPER.model_copy(update={"country_iso": "IRN"})
    summary = summarise(read_ledger(RunFolder(paper_run(tmp_path))), options)
    other = summary["grids"][0]
    assert (other["role"], other["country"], other["g_per_kwh"]) == ("country", "Iran", 655.125)
    assert other["co2_g"] == pytest.approx(co2_g(336, 1.4, 655.125)) and summary["co2_span_g"] is None
    assert summary["co2_g"] == pytest.approx(232_380, rel=1e-4)


def test_codecarbons_value_of_today_would_give_a_third_more(tmp_path: Path) -> None:
    summary = summarise(read_ledger(RunFolder(paper_run(tmp_path))), Energy(pue=1.4, country_iso="IRN"))
    assert "codecarbon" in summary["intensity"]["source"] and summary["intensity"]["year"] == 2023
    assert summary["co2_g"] == pytest.approx(co2_g(336, 1.4, 655.125))
    assert summary["co2_g"] / 232_380 == pytest.approx(655.125 / 494, rel=1e-3)


def test_every_sum_is_the_same_energy(tmp_path: Path) -> None:
    write(tmp_path, "a", [sample("1", "a", "prepare", (0, 0), {"cpu": 50.0}, kind="estimated"),
                          sample("1", "a", "pretrain", (1, 9), {"gpu0": 400.0, "cpu": 60.0})])  # fmt: skip
    write(tmp_path, "b", [sample("2", "b", "pretrain", (1, 9), {"gpu0": 300.0})])
    summary = summarise(read_ledger(RunFolder(tmp_path)), PAPER)
    assert summary["kwh"] == pytest.approx(810 / KWH)
    assert sum(summary["by_stage"].values()) == pytest.approx(summary["kwh"])
    assert sum(summary["by_node"].values()) == pytest.approx(summary["kwh"])
    assert sum(row["kwh"] for row in summary["by_component"].values()) == pytest.approx(summary["kwh"])
    assert summary["by_node"] == pytest.approx({"a": 510 / KWH, "b": 300 / KWH})
    assert summary["measured_ratio"] == pytest.approx(760 / 810)
    assert summary["by_component"]["cpu"]["measured_kwh"] == pytest.approx(60 / KWH)


def crashed(run: Path, *, resumed_step: int | None, trained_again: bool = True, later: str = LATER) -> Path:
    """Steps 1 to 10 at 100 J each in two lines, then a second attempt."""
    second = [start("2", "a", later, resumed_step=resumed_step)]
    if trained_again:
        second.append(sample("2", "a", "pretrain", (7, 10), {"cpu": 400.0}, time=later))
    first = [
        sample("1", "a", "prepare", (0, 0), {"cpu": 77.0}),
        sample("1", "a", "pretrain", (1, 5), {"cpu": 500.0}),
        sample("1", "a", "pretrain", (6, 10), {"cpu": 500.0}),
    ]
    write(run, "a", [start("1", "a"), *first, *second])
    return run


def test_steps_done_again_are_wasted_in_proportion(tmp_path: Path) -> None:
    """Resumed after step 6: of the line over steps 6 to 10, four fifths were thrown away."""
    summary = summarise(read_ledger(RunFolder(crashed(tmp_path, resumed_step=6))), PAPER)
    assert summary["wasted_kwh"] * KWH == pytest.approx(400)
    assert summary["attempts"] == 2


def test_an_attempt_that_died_before_training_wastes_by_what_it_resumed(tmp_path: Path) -> None:
    ledger = read_ledger(RunFolder(crashed(tmp_path, resumed_step=8, trained_again=False)))
    assert summarise(ledger, PAPER)["wasted_kwh"] * KWH == pytest.approx(200)


def test_nothing_is_wasted_without_a_second_attempt_or_a_resume_point(tmp_path: Path) -> None:
    ledger = read_ledger(RunFolder(crashed(tmp_path, resumed_step=None, trained_again=False)))
    assert lost_ratios(ledger.attempts) == {}
    ledger.attempts.pop()
    assert lost_ratios(ledger.attempts) == {}


def test_work_lost_on_one_node_is_known_from_the_resume_of_another(tmp_path: Path) -> None:
    """An elastic run: node b was lost at step 10 and never came back, node a went on from step 6."""
    crashed(tmp_path, resumed_step=6)
    write(tmp_path, "b", [sample("3", "b", "pretrain", (6, 10), {"cpu": 500.0})])
    assert summarise(read_ledger(RunFolder(tmp_path)), PAPER)["wasted_kwh"] * KWH == pytest.approx(800)


def test_an_evaluation_done_again_is_wasted_and_one_kept_is_not(tmp_path: Path) -> None:
    write(tmp_path, "a", [
        sample("1", "a", "evaluate:base", (0, 0), {"cpu": 30.0}),
        sample("1", "a", "pretrain", (1, 10), {"cpu": 100.0}),
        sample("1", "a", "evaluate:pretrain", (10, 10), {"cpu": 40.0}),
        sample("1", "a", "prepare:data", (0, 0), {"cpu": 9.0}),
        sample("1", "a", "start", (0, 0), {"cpu": 9.0}),
        sample("2", "a", "prepare:data", (0, 0), {"cpu": 1.0}, time=LATER),
        sample("2", "a", "start", (10, 10), {"cpu": 9.0}, time=LATER),
        sample("2", "a", "evaluate:pretrain", (10, 10), {"cpu": 41.0}, time=LATER),
        sample("2", "a", "instruct", (11, 20), {"cpu": 100.0}, time=LATER),
    ])  # fmt: skip
    assert summarise(read_ledger(RunFolder(tmp_path)), PAPER)["wasted_kwh"] * KWH == pytest.approx(40)


def test_steps_may_count_from_one_in_every_stage(tmp_path: Path) -> None:
    write(tmp_path, "a", [
        sample("1", "a", "pretrain", (1, 10), {"cpu": 100.0}),
        sample("1", "a", "instruct", (1, 4), {"cpu": 40.0}),
        sample("2", "a", "instruct", (3, 10), {"cpu": 80.0}, time=LATER),
    ])  # fmt: skip
    assert summarise(read_ledger(RunFolder(tmp_path)), PAPER)["wasted_kwh"] * KWH == pytest.approx(20)


def test_a_wall_clock_set_back_changes_no_joule_and_is_noted(tmp_path: Path) -> None:
    crashed(tmp_path, resumed_step=6)
    straight = summarise(read_ledger(RunFolder(tmp_path)), PAPER)
    back = tmp_path / "back"
    crashed(back, resumed_step=6, later="2026-02-27T00:00:00+00:00")
    summary = summarise(read_ledger(RunFolder(back)), PAPER)
    assert any("clock was set back" in note for note in summary["notes"])
    for key in ("kwh", "wasted_kwh", "co2_g", "by_stage"):
        assert summary[key] == straight[key]


def test_an_unknown_country_leaves_co2_open_and_says_what_to_do(tmp_path: Path) -> None:
    summary = summarise(read_ledger(RunFolder(paper_run(tmp_path))), Energy(country_iso="QQQ"))
    assert summary["kwh"] == pytest.approx(336) and summary["co2_g"] is None
    assert summary["intensity_g_per_kwh"] is None
    assert any("QQQ" in text and "intensity_g_per_kwh" in text for text in summary["problems"])
    assert all(row["recomputed_co2_g"] is None for row in summary["comparison"])


def test_a_line_cut_short_loses_only_itself(tmp_path: Path) -> None:
    path = write(tmp_path, "a", [sample("1", "a", "pretrain", (1, 1), {"cpu": 100.0})] * 2)
    path.write_text(path.read_text()[:-30])
    ledger = read_ledger(RunFolder(tmp_path))
    assert summarise(ledger, PAPER)["kwh"] == pytest.approx(100 / KWH)
    assert ledger.damage == ["energy/a.jsonl: 1 damaged line(s), such as a kill leaves, were left out"]


def _numbered(run: Path, numbers: Sequence[int]) -> Ledger:
    """A start, three samples of 10 J, a note and a stop were written; these lines are left of them."""
    samples = [sample("x", "a", "pretrain", (n, n), {"cpu": 10.0}) for n in (1, 2, 3)]
    said = EnergyNote(
        time=MORNING, monotonic_s=0.0, attempt="x", node="a", missing=True, message="no power is known"
    )
    end = stop("x", "a").model_copy(update={"total_j": 30.0})
    lines = dict(enumerate([start("x", "a"), *samples, said, end], 1))
    write(run, "a", [lines[n].model_copy(update={"number": n}) for n in numbers])
    return read_ledger(RunFolder(run))


def test_lines_that_are_lost_or_stand_twice_are_counted_with_their_energy(tmp_path: Path) -> None:
    assert _numbered(tmp_path, (1, 2, 3, 4, 5, 6)).damage == []
    lost = _numbered(tmp_path, (1, 2, 4, 5, 6))
    (told,) = lost.damage
    assert "of 6 lines of the attempt of" in told and "1 are lost, 10 of 30 J" in told
    assert told in summarise(lost, PAPER)["problems"]
    assert "2 are lost, 20 of 30 J" in _numbered(tmp_path, (1, 2, 5, 6)).damage[0], "the last ones too"
    assert "1 are lost; their energy" in _numbered(tmp_path, (1, 2, 4)).damage[0]
    assert "1 are lost" in _numbered(tmp_path, (1, 2, 3, 4, 6)).damage[0], "a note"
    twice = _numbered(tmp_path, (1, 2, 3, 3, 4, 5, 5, 6))
    assert sum(one.joules for one in twice.samples) == 30.0 and len(twice.problems) == 1
    assert ["stands twice; it counts once" in one for one in twice.damage] == [True, True]


def test_a_file_without_a_line_is_damage(tmp_path: Path) -> None:
    write(tmp_path, "a", []).write_text("")
    assert read_ledger(RunFolder(tmp_path)).damage == [
        "energy/a.jsonl: no line in it; its energy is not counted"
    ]


def test_a_changed_digit_and_an_unknown_kind_are_counted_and_left_out(tmp_path: Path) -> None:
    good = sample("1", "a", "pretrain", (1, 1), {"cpu": 100.0})
    path = write(tmp_path, "a", [good] * 3)
    first, second, third = path.read_text().splitlines()
    content = good.model_dump(mode="json")
    strange = [{**content, "kind": "guess"}, {**content, "phase": "sleep"}, {**content, "time": "2026-03-01"}]
    others = [dump_checked_line(item) for item in strange]
    path.write_text("\n".join([first, second.replace("100.0", "900.0"), third, *others]) + "\n")
    ledger = read_ledger(RunFolder(tmp_path))
    assert summarise(ledger, PAPER)["kwh"] == pytest.approx(200 / KWH)
    assert ledger.damage == [
        "energy/a.jsonl: 1 damaged line(s), such as a kill leaves, were left out",
        "energy/a.jsonl: 3 line(s) of an unknown kind were left out",
    ]


@pytest.mark.parametrize("name", ["report", "base", *Phase])
def test_a_stage_may_be_called_like_anything(tmp_path: Path, name: str) -> None:
    """What trains is told by the phase alone: such a stage's steps are lost and found like any other's."""
    steps = [((1, 10), "1", MORNING), ((7, 16), "2", LATER)]
    lines = [sample(a, "a", name, s, {"cpu": 100.0}, time=t, phase=Phase.TRAIN) for s, a, t in steps]
    write(tmp_path, "a", [*lines, sample("2", "a", "export", (16, 16), {"cpu": 5.0}, time=LATER)])
    ledger = read_ledger(RunFolder(tmp_path))
    first = ledger.attempts[0].first_training()
    assert first is not None and first.stage == name
    summary = summarise(ledger, PAPER)
    assert summary["wasted_kwh"] * KWH == pytest.approx(40)
    trained = f"train:{name}" if name in set(Phase) else name
    assert {key: kwh * KWH for key, kwh in summary["by_stage"].items()} == pytest.approx(
        {trained: 200.0, "export": 5.0}
    )


def test_control_the_phase_is_what_tells_training_from_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By names alone a stage called export and the export of the run would be one."""
    lines = [
        sample("1", "a", Phase.EXPORT, (1, 4), {"cpu": 100.0}, phase=Phase.TRAIN),
        sample("1", "a", Phase.EXPORT, (4, 4), {"cpu": 5.0}),
    ]
    write(tmp_path, "a", lines)
    assert len(summarise(read_ledger(RunFolder(tmp_path)), PAPER)["by_stage"]) == 2
    monkeypatch.setattr(EnergySample, "label", property(lambda self: self.stage or str(self.phase)))
    assert len(summarise(read_ledger(RunFolder(tmp_path)), PAPER)["by_stage"]) == 1


def test_a_killed_meter_is_named_with_what_can_be_missing(tmp_path: Path) -> None:
    crashed(tmp_path, resumed_step=6)
    problems = summarise(read_ledger(RunFolder(tmp_path)), PAPER)["problems"]
    assert any("was killed" in text for text in problems)


def test_an_empty_run_is_an_account_that_says_so(tmp_path: Path) -> None:
    summary = summarise(read_ledger(RunFolder(tmp_path)), PAPER)
    assert summary["kwh"] == 0 and summary["measured_ratio"] is None
    assert "no energy was recorded" in summary["problems"][0]


def test_money_tokens_characters_and_hardware(tmp_path: Path) -> None:
    options = PAPER.model_copy(update={"price_per_kwh": 0.1, "embodied_g_per_hour": 20.0})
    summary = summarise(
        read_ledger(RunFolder(paper_run(tmp_path))), options, tokens=2_000_000_000, characters=8_000_000_000
    )
    assert summary["cost"] == {"amount": pytest.approx(336 * 1.4 * 0.1), "currency": "USD"}
    assert summary["per_million_tokens"]["co2_g"] == pytest.approx(232_380 / 2000, rel=1e-4)
    assert summary["per_million_characters"]["kwh"] == pytest.approx(336 / 8000)
    assert summary["embodied_g"] == pytest.approx(240 * 20)
    assert summary["uncertainty"]["high_kwh"] == pytest.approx(336 * 1.05)
