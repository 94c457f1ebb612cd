"""The model card of an exported folder: the Hub's metadata, and the text for people (card_text.py)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from persianmind.common.atomic import write_text
from persianmind.energy.account import account
from persianmind.energy.co2.card import co2_eq_emissions
from persianmind.energy.ledger import read_ledger
from persianmind.energy.machines import hardware_names
from persianmind.publish.card_text import CardFacts, card_text
from persianmind.publish.origin import base_origin, copy_notices, is_hub_name
from persianmind.publish.usage import gguf_file, is_adapter
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.records import RunResults
from persianmind.run.scores import scores_by_stage
from persianmind.text.sources.locate import source_uris

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

CARD = "README.md"
TAGS = ("persianmind", "lora", "vocabulary-expansion")


def write_card(
    recipe: Recipe,
    run: RunFolder,
    export: Path,
    results: RunResults,
    *,
    base: Path,
    hub_id: str | None = None,
    variant: str | None = None,
) -> Path:
    """Writes README.md into `export`, with the Hub's metadata, and copies the base's licence and notices.

    Args:
        recipe: the run's.
        run: its ledger names the hardware.
        export: the exported folder, its tokenizer and chat template in it.
        results: the run's, its account with them.
        base: the base model's folder.
        hub_id: owner/name of the base on the Hub, where the user states it.
        variant: how this model differs from the one that `results` scores, such as "checkpoint step-40";
            it then gets no score and no sample. None: it is that one.

    Returns:
        The path of the README.md.

    Raises:
        UsageError: `hub_id` is not of the form owner/name.
    """
    from huggingface_hub import ModelCard

    origin = base_origin(recipe.base, base, hub_id)
    if (file := gguf_file(export)) is not None:  # rounded, and computed by another program
        variant = f"{variant}, as {file}" if variant else f"the run's last, as {file}"
    facts = CardFacts(
        recipe=recipe,
        # A run that has not ended has an account, but not yet among its results.
        results=results if results.energy else results.model_copy(update={"energy": account(run)}),
        origin=origin,
        notices=copy_notices(origin, export),
        sources=used_sources(recipe),
        hardware=hardware_names(read_ledger(run)),
        variant=variant,
    )
    library = None if file else "peft" if is_adapter(export) else "transformers"
    card = ModelCard(f"---\n{_metadata(facts, library).to_yaml()}\n---\n\n{card_text(facts, export)}")
    path = export / CARD
    write_text(path, str(card))
    return path


def used_sources(recipe: Recipe) -> list[str]:
    """The sources that the model depends on: of the vocabulary, the stages, and the held-out text."""
    used = {*recipe.stage_sources(), *recipe.vocab.sources, *recipe.heldout.sources}
    return [name for name in recipe.sources if name in used]


def _metadata(facts: CardFacts, library: str | None) -> ModelCardData:
    from huggingface_hub import ModelCardData

    licence = facts.origin.licence
    codes = dict.fromkeys(code.replace("-", "_").partition("_")[0] for code in facts.languages())
    scores = _eval_results(facts)
    return ModelCardData(
        language=[code for code in codes if re.fullmatch("[a-z]{2,3}", code)] or None,
        license=licence.id,
        license_name=licence.name,
        license_link=licence.link,
        base_model=facts.origin.hub_id,
        datasets=_hub_datasets(facts.recipe, facts.sources) or None,
        library_name=library,
        pipeline_tag="text-generation",
        tags=list(TAGS),
        model_name=facts.recipe.name if scores else None,
        eval_results=scores or None,
        co2_eq_emissions=_emissions(facts),
    )


def _emissions(facts: CardFacts) -> dict[str, Any] | None:
    summary = facts.account()
    if summary.get("co2_g") is None:
        return None
    location = facts.recipe.energy.country_iso or "unknown"
    return co2_eq_emissions(summary, location=location, hardware=facts.hardware or "unknown")


def _hub_datasets(recipe: Recipe, names: list[str]) -> list[str]:
    """The names of the sources that lie on the Hub; of others no address is published."""
    found: dict[str, None] = {}
    for uri in (uri for name in names for uri in source_uris(recipe.sources[name])):
        if uri.startswith("hf://"):
            dataset = urlsplit(uri.removeprefix("hf://")).path
            if is_hub_name(dataset) or re.fullmatch(r"\w[\w.-]*", dataset, re.ASCII):
                found[dataset] = None
    return list(found)


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    """Bits per byte after the last stage, for the Hub's model-index."""
    from huggingface_hub import EvalResult

    scores = scores_by_stage(facts.results)
    if facts.variant is not None or not scores:
        return []
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Text generation",
            dataset_type="held-out",
            dataset_name=f"Held-out text ({language})",
            dataset_config=language,
            dataset_args={"n_documents": score.n_documents, "n_bytes": score.n_bytes},
            metric_type="bits_per_byte",
            metric_name="Bits per byte",
            metric_value=round(score.bits_per_byte, 6),
        )
        for language, score in scores[list(scores)[-1]].items()
    ]
