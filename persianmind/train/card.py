"""The model card of an exported folder: what it was made from, what it scored, what it emitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from persianmind.common.atomic import write_text
from persianmind.energy.co2.card import co2_eq_emissions
from persianmind.recipe import Recipe
from persianmind.run.records import RunResults
from persianmind.train.summary import summary_lines


def write_card(recipe: Recipe, export: Path, results: RunResults) -> Path:
    """Writes README.md into `export`, with the Hub's metadata keys; emissions in grams.

    Returns:
        The path of the README.md.
    """
    languages = list(dict.fromkeys(source.language for source in recipe.sources.values()))
    metadata: dict[str, Any] = {
        "language": languages,
        "base_model": recipe.base,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["persianmind", "lora", "vocabulary-expansion"],
    }
    account = results.energy or {}
    if account.get("co2_g") is not None:
        country = recipe.energy.country_iso
        metadata["co2_eq_emissions"] = co2_eq_emissions(
            account, location=country, hardware=_hardware(account)
        )
    sources = "\n".join(f"| {n} | {s.language} | {s.licence} |" for n, s in recipe.sources.items())
    body = "\n".join(summary_lines(results))
    text = (
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n"
        f"# {recipe.name}\n\nAdapted from `{recipe.base}` with PersianMind. Held-out scores by stage:\n\n"
        f"```\n{body}\n```\n\n| data | language | licence |\n| --- | --- | --- |\n{sources}\n"
    )
    path = export / "README.md"
    write_text(path, text)
    return path


def _hardware(account: dict[str, Any]) -> str:
    """The counted components by name, such as "cpu, ram" or "gpu0, gpu1, cpu, ram"."""
    return ", ".join(account.get("by_component") or {}) or "unknown"
