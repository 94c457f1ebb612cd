"""The table a run ends with."""

from __future__ import annotations

from persianmind.run.evaluation_records import EvaluationResult, SuiteResult
from persianmind.run.records import BestCheckpoint, ExportResult, RunResults
from persianmind.run.scores import scores_by_stage
from persianmind.train.summary import closing_lines, summary_lines


def score(stage: str, language: str, bits: float, low: float | None = None) -> EvaluationResult:
    return EvaluationResult(
        stage=stage,
        language=language,
        bits_per_byte=bits,
        ci_low=low,
        ci_high=None if low is None else 2 * bits - low,
        n_tokens=10,
        n_documents=2,
        n_bytes=40,
    )


SCORES = [
    score("base", "fa", 10.07196, 10.0),
    score("base", "en", 3.5),
    score("pretrain", "fa", 2.21964, 2.2),
    score("pretrain", "en", 3.70019, 3.7),
]


def test_a_line_for_each_stage_with_the_columns_of_both_languages() -> None:
    lines = summary_lines(RunResults(evaluation=SCORES))
    assert lines == [
        "stage                     fa bits/byte (95%)            en bits/byte (95%)",
        "base            10.0720 (10.0000 to 10.1439)                        3.5000",
        "pretrain           2.2196 (2.2000 to 2.2393)     3.7002 (3.7000 to 3.7004)",
        "held-out documents: fa 2, 40 bytes; en 2, 40 bytes",
    ]
    assert max(map(len, lines)) <= 80


def test_energy_and_co2_are_the_last_line() -> None:
    account = {
        "kwh": 0.00023211, "measured_kwh": 0.00013211, "estimated_kwh": 0.0001, "unknown": ["cpu"],
        "uncertainty": {"low_kwh": 0.0002, "high_kwh": 0.0004, "basis": "bound"},
        "co2_g": 0.16053, "co2_span_g": None,
    }  # fmt: skip
    used = "energy: 0.132 Wh measured + 0.1 Wh estimated (0.2 Wh to 0.4 Wh), CPU unknown; CO2eq: "
    assert summary_lines(RunResults(energy=account))[-1] == f"{used}161 mg"
    assert summary_lines(RunResults(energy=account | {"co2_g": None}))[-1] == f"{used}unknown"


def test_nothing_scored_and_nothing_counted_is_a_header_alone() -> None:
    assert summary_lines(RunResults()) == ["stage         "]
    assert summary_lines(RunResults(energy={"kwh": None, "co2_g": None})) == ["stage         "]


def test_a_language_that_a_stage_was_not_scored_on_is_a_dash() -> None:
    lines = summary_lines(RunResults(evaluation=SCORES[:3]))
    assert lines[2] == "pretrain           2.2196 (2.2000 to 2.2393)                             -"
    assert len({len(line) for line in lines[:3]}) == 1


def test_suites_of_the_last_stage_stand_beside_the_base() -> None:
    def result(stage: str, metric: str, value: float, step: int | None = None) -> SuiteResult:
        return SuiteResult(suite="own", task="t", metric=metric, value=value, ci_low=0.1, ci_high=0.9, n=7,
                           stage=stage, step=step)  # fmt: skip

    results = [result("base", "accuracy_letter", 0.25), result("base", "accuracy_text", 0.5),
               result("pretrain", "accuracy_letter", 0.3, step=5),
               result("pretrain", "accuracy_letter", 0.5)]  # fmt: skip
    best = BestCheckpoint(metric="fa", value=1.5, step=4)
    assert summary_lines(RunResults(results=results, best=best))[1:] == [
        "own/t: accuracy_letter 0.5 [0.1, 0.9] (base 0.25), 7 items",
        "best fa: 1.5000 at step 4, its checkpoint is kept",
    ]


def test_scores_are_grouped_in_the_order_they_were_measured() -> None:
    grouped = scores_by_stage(RunResults(evaluation=SCORES))
    assert [(stage, list(scores)) for stage, scores in grouped.items()] == [
        ("base", ["fa", "en"]), ("pretrain", ["fa", "en"]),
    ]  # fmt: skip
    assert grouped["pretrain"]["en"] is SCORES[3]


def test_the_end_says_what_was_gained_lost_and_what_to_do_next() -> None:
    export = ExportResult(relative_loss_difference=0.0, tolerance=0.1)
    lines = list(closing_lines(RunResults(evaluation=SCORES, export=export), "runs/mine"))
    assert lines[:2] == ["gained: fa 78.0% fewer bits per byte", "lost: en 5.7% more bits per byte"]
    assert lines[2].startswith("to lose less: more of that language")
    assert lines[3].startswith("next: persianmind chat runs/mine; ")
    kept = [*SCORES[:3], score("pretrain", "en", 3.51)]
    small = list(closing_lines(RunResults(evaluation=kept), "runs/mine"))
    assert small[1:] == ["lost: en 0.3% more bits per byte"]  # nothing to do about so little, and no export
    assert list(closing_lines(RunResults(), "runs/mine")) == []


def test_a_change_within_the_intervals_is_called_noise() -> None:
    scores = [score("base", "fa", 2.0, 1.9), score("pretrain", "fa", 1.95, 1.85)]
    (line,) = closing_lines(RunResults(evaluation=scores), "runs/mine")
    assert line == "gained: fa 2.5% fewer bits per byte, within the noise of so little held-out text"
