"""The text of a model card. What a run does not know of itself is said to be unknown; nothing that names a
person's folders or machines is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.errors import RecipeError
from persianmind.energy.co2.card import emission_range_g
from persianmind.energy.show import co2_text, energy_text, mass_text
from persianmind.language import LanguageProfile, language_name, profile_for
from persianmind.model.bases import GGUF_PACKAGES
from persianmind.publish.markdown import escape_markdown, fenced, markdown_table
from persianmind.publish.origin import BaseOrigin
from persianmind.publish.usage import gguf_file, is_adapter, usage
from persianmind.recipe import Recipe
from persianmind.recipe.text import Normalise, Source
from persianmind.run.evaluation_records import EvaluationResult
from persianmind.run.records import BASE_STAGE, Phase, RunResults, SampleText
from persianmind.run.scores import scores_by_stage

UNSTATED = Source.model_fields["licence"].default
_OPTIONS = {"native": "digits to its own", "ascii": "digits to 0-9", "strip": "vowel marks removed"}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is made from. sources: names of those that were used. hardware: None is unknown. variant:
    see `card.write_card`."""

    recipe: Recipe
    results: RunResults
    origin: BaseOrigin
    notices: list[str]
    sources: list[str]
    hardware: str | None
    variant: str | None

    def languages(self) -> list[str]:
        """Those of the sources that were used, in the recipe's order."""
        return list(dict.fromkeys(code for name in self.sources for code in self.recipe.sources[name].codes))

    def profile(self, code: str) -> LanguageProfile | None:
        """That of a language; None where none is known."""
        try:
            return profile_for(code, self.recipe.profiles)
        except RecipeError:
            return None

    def name(self, code: str) -> str:
        """A language's name in English, for Markdown; its code where none is known."""
        profile = self.profile(code)
        return escape_markdown(language_name(code) if profile is None else profile.name)

    def account(self) -> dict[str, Any]:
        """The energy account; {} where nothing was counted: its zeros would read as no emissions."""
        account = self.results.energy or {}
        return account if account.get("node_hours") else {}

    def sample(self) -> SampleText | None:
        """What the exported model wrote."""
        return next((one for one in self.results.samples if one.stage == Phase.EXPORT), None)


def card_text(facts: CardFacts, export: Path) -> str:
    """Everything below the metadata; the prompt is rendered by the tokenizer in `export`."""
    sections = [
        ("", [f"# {facts.recipe.name}", _summary(facts, export)]),
        ("Use", usage(export, _example(facts), facts.origin.hub_id)),
        ("Scores", _scores(facts)),
        ("Sample", _sample(facts)),
        ("Training data", _data(facts)),
        ("Energy and CO2", _energy(facts)),
        ("Limits", ["\n".join(f"- {limit}" for limit in _limits(facts))]),
        ("Licence", _licence(facts)),
    ]
    paragraphs = [part for title, parts in sections for part in ([f"## {title}"] if title else []) + parts]
    return "\n\n".join(paragraphs) + "\n"


def _summary(facts: CardFacts, export: Path) -> str:
    recipe, size = facts.recipe, facts.results.model
    vocabulary = (
        "" if size is None else f"{size.added_vocab:,} tokens were added to its {size.base_vocab:,}; "
    )
    kind = recipe.train.quantize
    quantised = "" if kind == "none" else f", over a base quantised to {kind}"
    tokens = facts.account().get("per_million_tokens")
    amount = f" on {tokens['count']:,} tokens" if tokens else ""
    languages = ", ".join(dict.fromkeys(map(facts.name, facts.languages())))
    text = (
        f"{_base(facts)}, adapted with PersianMind to text in {languages}: {vocabulary}"
        f"the new embeddings and LoRA adapters (rank {recipe.adapter.rank}{_layers(recipe)}) were trained"
        f"{amount}{quantised}, and {_form(export)}."
    )
    if facts.variant is not None:
        text += f" This model: {escape_markdown(facts.variant)}."
    return text


def _layers(recipe: Recipe) -> str:
    """Where adapters lie, if not in every layer."""
    return "" if recipe.adapter.layers is None else f", in {recipe.adapter.layers_text}"


def _form(export: Path) -> str:
    if is_adapter(export):
        return "lie here as a PEFT adapter, to be put on the base"
    return "are merged into this GGUF" if gguf_file(export) else "are merged into these weights"


def _base(facts: CardFacts) -> str:
    base, hub_id = facts.recipe.base, facts.origin.hub_id
    if base.startswith("random://"):
        return "A small model with random weights, as it is made for tests"
    if hub_id is None:
        return "A model from a local folder, whose name on the Hub is unknown"
    held = ""
    if base.startswith("package://"):
        held = f" (weights as `{GGUF_PACKAGES[base.removeprefix('package://')][2]}` holds them)"
    return f"[{escape_markdown(hub_id)}](https://huggingface.co/{hub_id}){held}"


def _example(facts: CardFacts) -> str:
    sample, prompts = facts.sample(), facts.recipe.evaluate.prompts
    return sample.prompt if sample else prompts[0] if prompts else "Hello"


def _scores(facts: CardFacts) -> list[str]:
    scores = scores_by_stage(facts.results)
    if not scores:
        return ["This model was not scored."]
    languages = list(dict.fromkeys(score.language for score in facts.results.evaluation))
    table = markdown_table(
        ["after", *(f"bits per byte, {facts.name(language)}" for language in languages)],
        (
            [
                "nothing (the base model)" if stage == BASE_STAGE else stage,
                *(_score(one[name]) if name in one else "not scored" for name in languages),
            ]
            for stage, one in scores.items()
        ),
    )
    size = "; ".join(
        f"{facts.name(language)}: {score.n_bytes:,} bytes in {score.n_documents:,} document(s)"
        for language, score in next(iter(scores.values())).items()
    )
    told = f"Held-out text of the training sources, never trained on ({size}). Lower is better; in brackets "
    parts = [f"{told}the 95% interval over documents.", table]
    if facts.variant is not None:
        parts.append(f"These are the run's scores; this model ({escape_markdown(facts.variant)}) has none.")
    elif (check := facts.results.export) is not None:
        parts.append(
            f"The loss of these weights differs by {check.relative_loss_difference:.2g} (relative) from that "
            "of the trained model."
        )
    return parts


def _score(score: EvaluationResult) -> str:
    if score.ci_low is None or score.ci_high is None:
        return f"{score.bits_per_byte:.4f}"
    return f"{score.bits_per_byte:.4f} ({score.ci_low:.4f} to {score.ci_high:.4f})"


def _sample(facts: CardFacts) -> list[str]:
    sample = facts.sample()
    if sample is None or facts.variant is not None:
        return ["No sample of this model was made."]
    return ["To the recipe's first prompt", fenced(sample.prompt), "it answered", fenced(sample.text)]


def _data(facts: CardFacts) -> list[str]:
    sources = [(name, facts.recipe.sources[name]) for name in facts.sources]
    rows = [
        [name, ", ".join(one.codes), one.kind, "unknown" if one.licence in ("", UNSTATED) else one.licence]
        for name, one in sources
    ]
    return [markdown_table(["source", "language", "kind", "licence"], rows)]


def _energy(facts: CardFacts) -> list[str]:
    account, hardware = facts.account(), escape_markdown(facts.hardware or "unknown")
    if not account:
        return [f"No energy was recorded: use and emissions are unknown. Hardware: {hardware}."]
    basis = escape_markdown(account["uncertainty"]["basis"])
    text = f"{energy_text(account)}, on {hardware}. The range: {basis}. "
    if account["co2_g"] is None:
        text += f"Emissions: {escape_markdown(co2_text(account))}, as no grid is stated."
    else:
        low_g, high_g = emission_range_g(account)
        text += (
            f"Emissions: {mass_text(account['co2_g'])} CO2eq ({mass_text(low_g)} to "
            f"{mass_text(high_g)}), with PUE {account['pue']:g} and "
            f"{account['intensity_g_per_kwh']:.4g} g/kWh ({escape_markdown(account['intensity']['source'])})."
        )
    if account["problems"]:
        text += f" The run's own report lists gaps or doubts of this account: {len(account['problems'])}."
    return [text, f"Not counted: {'; '.join(map(escape_markdown, account['not_counted']))}."]


def _limits(facts: CardFacts) -> Iterator[str]:
    yield "What it writes may be wrong, biased or harmful; no safety training was added to the base's."
    longest = facts.recipe.longest_seq_len
    yield f"It was trained on sequences of {longest:,} tokens; longer text was not tried."
    yield "Bits per byte say how well it predicts text, and little about how well it follows instructions."
    yield from _spelling(facts)


def _spelling(facts: CardFacts) -> Iterator[str]:
    """What was done to the spelling of training text, by language, and how a prompt gets the same."""
    options = facts.recipe.normalise
    if not options.enabled:
        return
    composed = []
    for code in facts.languages():
        if (profile := facts.profile(code)) is None:
            continue
        told = [rule for name, rule in profile.rules.items() if name != "nfc" and options.has(name)]
        if profile.digits:
            told += [_OPTIONS[one] for one in (options.digits, options.diacritics) if one in _OPTIONS]
        if told:
            yield (
                f"Training text in {facts.name(code)} was normalised ({escape_markdown('; '.join(told))}) "
                f"and the tokenizer does not do so: {_normaliser(facts.recipe, code)} gives a prompt the "
                "same spelling."
            )
        elif "nfc" in profile.rules and options.has("nfc"):
            composed.append(facts.name(code))
    if composed:
        yield f"Training text in {' and '.join(dict.fromkeys(composed))} was put in Unicode NFC."


def _normaliser(recipe: Recipe, code: str) -> str:
    """Code that spells `prompt` as the recipe spelled its text."""
    if code not in recipe.profiles and recipe.normalise == Normalise():
        return f'`from persianmind.language import profile_for; profile_for("{code}").normalise(prompt)`'
    return (
        "`from pathlib import Path; from persianmind.language import profile_for; "
        "from persianmind.publish.manifest import read_export_manifest; "
        "made = read_export_manifest(Path('.')); "  # rules and options of one's own lie beside the weights
        f'profile_for("{code}", made.profiles).normalise(prompt, made.normalise)`'
    )


def _licence(facts: CardFacts) -> list[str]:
    licence = facts.origin.licence
    if facts.recipe.base.startswith("random://"):
        text = "The base is random numbers and has no licence."
    elif not licence.known:
        text = "The licence of the base model is unknown: find it out before you share this model."
    else:
        name = escape_markdown(licence.name or licence.id)
        text = f"The base model is under {name} (by {escape_markdown(licence.said_by)})."
    if facts.notices:
        text += f" Its files {', '.join(map(escape_markdown, facts.notices))} lie beside this one."
    unstated = [name for name in facts.sources if facts.recipe.sources[name].licence in ("", UNSTATED)]
    if unstated:
        text += f" Of these sources of training text no licence is stated: {', '.join(unstated)}."
    return [f"{text} What was trained on which licence allows is for whoever shares the model to know."]
