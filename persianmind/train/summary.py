"""The table a run ends with."""

from __future__ import annotations

from persianmind.run.records import EvaluationResult, RunResults
from persianmind.run.scores import scores_by_stage


def summary_lines(results: RunResults) -> list[str]:
    """The table a run ends with: bits per byte and perplexity of every stage, energy and CO2."""
    languages = dict.fromkeys(score.language for score in results.evaluation)
    header = f"{'stage':<14}" + "".join(f"{name + ' bits/byte':>16}{name + ' ppl':>12}" for name in languages)
    lines = [header]
    for stage, scores in scores_by_stage(results).items():
        lines.append(f"{stage:<14}" + "".join(_cells(scores.get(language)) for language in languages))
    account = results.energy or {}
    if account.get("kwh") is not None:
        grams = account.get("co2_g")
        co2 = "CO2 unknown" if grams is None else f"{grams:.3g} g CO2eq"
        lines.append(f"energy: {account['kwh']:.4g} kWh, {co2}")
    return lines


def _cells(score: EvaluationResult | None) -> str:
    if score is None:
        return f"{'-':>16}{'-':>12}"
    return f"{score.bits_per_byte:>16.4f}{score.perplexity:>12.2f}"
