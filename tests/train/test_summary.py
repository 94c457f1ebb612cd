"""The table a run ends with."""

from __future__ import annotations

from persianmind.run.records import EvaluationResult, RunResults
from persianmind.run.scores import scores_by_stage
from persianmind.train.summary import summary_lines


def score(stage: str, language: str, bits: float, perplexity: float) -> EvaluationResult:
    return EvaluationResult(
        stage=stage,
        language=language,
        bits_per_byte=bits,
        perplexity=perplexity,
        n_tokens=10,
        n_documents=2,
        n_bytes=40,
    )


SCORES = [
    score("base", "fa", 10.07196, 1076.371),
    score("base", "en", 3.5, 1050.2354),
    score("pretrain", "fa", 2.21964, 377.976),
    score("pretrain", "en", 3.70019, 1348.7112),
]


def test_a_line_for_each_stage_with_the_columns_of_both_languages() -> None:
    assert summary_lines(RunResults(evaluation=SCORES)) == [
        "stage             fa bits/byte      fa ppl    en bits/byte      en ppl",
        "base                   10.0720     1076.37          3.5000     1050.24",
        "pretrain                2.2196      377.98          3.7002     1348.71",
    ]


def test_energy_and_co2_are_the_last_line() -> None:
    account = {"kwh": 0.00023211, "co2_g": 0.16053}
    assert summary_lines(RunResults(energy=account))[-1] == "energy: 0.0002321 kWh, 0.161 g CO2eq"
    assert summary_lines(RunResults(energy=account | {"co2_g": None}))[-1] == (
        "energy: 0.0002321 kWh, CO2 unknown"
    )


def test_nothing_scored_and_nothing_counted_is_a_header_alone() -> None:
    assert summary_lines(RunResults()) == ["stage         "]
    assert summary_lines(RunResults(energy={"kwh": None, "co2_g": None})) == ["stage         "]


def test_a_language_that_a_stage_was_not_scored_on_is_a_dash() -> None:
    lines = summary_lines(RunResults(evaluation=SCORES[:3]))
    assert lines[2] == "pretrain                2.2196      377.98               -           -"
    assert len({len(line) for line in lines}) == 1


def test_scores_are_grouped_in_the_order_they_were_measured() -> None:
    grouped = scores_by_stage(RunResults(evaluation=SCORES))
    assert [(stage, list(scores)) for stage, scores in grouped.items()] == [
        ("base", ["fa", "en"]), ("pretrain", ["fa", "en"]),
    ]  # fmt: skip
    assert grouped["pretrain"]["en"] is SCORES[3]
