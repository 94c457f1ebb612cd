"""The end of a run, on rank 0 alone: export, proof of the export, samples, account, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import PersianMindError
from persianmind.energy.account import account
from persianmind.estimate.flops import weight_count
from persianmind.evaluate.generate import generate
from persianmind.evaluate.text import held_out_sequences
from persianmind.model.adapted import AdaptedModel
from persianmind.model.bases import resolve_base
from persianmind.model.export.hf import export_merged
from persianmind.recipe import Recipe
from persianmind.run.log import update_results
from persianmind.text.documents import held_out_texts
from persianmind.train.card import write_card
from persianmind.train.saving import package_versions
from persianmind.train.summary import summary_lines

if TYPE_CHECKING:
    from persianmind.energy.meter.client import EnergyMeter

EXPORT = "export"
# Largest relative difference of the loss on held-out rows between the trained and the merged model: adding
# a delta to a bf16 weight rounds it once more than keeping both apart.
EXPORT_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
# The merged model stands on the base as it lies on disk, the trained one on its 4-bit rounding: this lets
# through what nf4 itself costs in precision.
NF4_TOLERANCE = 0.15


def finish_run(
    recipe: Recipe,
    run: Path,
    model: AdaptedModel,
    meter: EnergyMeter | None,
    say: Callable[[str], None],
    write_report: Callable[[Path], Path],
) -> None:
    """Writes export/, the last parts of results.json and report.html, and prints the table."""
    facts = {
        "parameters": sum(map(weight_count, model.parameters())),
        "trained_parameters": sum(value.numel() for value in model.trained().values()),
        "base_vocab": model.output_table.base_vocab,
        "added_vocab": model.output_table.added_vocab,
    }
    changes: dict[str, Any] = {"model": facts, "versions": package_versions()}
    if recipe.export.enabled:
        if meter is not None:
            meter.mark("export", 0)
        say(f"export: merging into {run / EXPORT}")
        if not (run / EXPORT / "config.json").is_file():
            base = resolve_base(recipe.base)
            export_merged(
                model,
                base,
                run / "vocab",
                run / EXPORT,
                dtype=recipe.export.dtype,
                pad_vocab_to_multiple=recipe.export.pad_vocab_to_multiple,
            )
        changes["export"] = check_export(recipe, run, model)
        changes["samples"] = _samples(recipe, run)
    if meter is not None:
        meter.stop()
    changes["energy"] = account(run)
    results = update_results(run, **changes)
    if recipe.export.enabled:
        write_card(recipe, run / EXPORT, results)
    # Last of all: until this is written, the same command does the end of the run again.
    results = update_results(run, finished=True)
    report = write_report(run)
    for line in summary_lines(results):
        say(line)
    say(f"report: {report}")


def check_export(recipe: Recipe, run: Path, model: AdaptedModel) -> dict[str, float]:
    """Loss of the trained and of the exported model on the first held-out row of each language.

    Raises:
        PersianMindError: they differ by more than rounding explains.
    """
    import torch
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(run / EXPORT, use_safetensors=True)
    exported.to(next(model.parameters()).device).eval()
    model.eval()
    worst = 0.0
    languages = dict.fromkeys(recipe.sources[name].language for name in recipe.heldout.sources)
    for language in languages:
        texts = held_out_texts(recipe, language)
        for row in held_out_sequences(texts, run / "vocab", recipe.data.seq_len).sequences[:1]:
            tensors = {name: torch.from_numpy(array) for name, array in row.items()}
            labels = tensors.pop("labels")
            with torch.no_grad():
                ours = float(model(**tensors, labels=labels))
                logits = exported(**tensors, use_cache=False).logits
            theirs = torch.nn.functional.cross_entropy(
                logits[0].float(), labels[0], ignore_index=-100, reduction="sum"
            )
            worst = max(worst, abs(ours - float(theirs)) / abs(ours))
    tolerance = NF4_TOLERANCE if recipe.train.quantize == "nf4" else EXPORT_TOLERANCE[recipe.export.dtype]
    if worst > tolerance:
        raise PersianMindError(
            f"{run / EXPORT} does not match the trained model: its loss differs by {worst:.2%} "
            f"(at most {tolerance:.2%} is rounding); do not use it, and report the package versions"
        )
    return {"relative_loss_difference": worst, "tolerance": tolerance}


def _samples(recipe: Recipe, run: Path) -> list[dict[str, str]]:
    prompts = recipe.evaluate.prompts
    if not prompts:
        return []
    texts = generate(run / EXPORT, prompts, max_new_tokens=recipe.evaluate.max_new_tokens)
    return [{"prompt": p, "text": t, "stage": EXPORT} for p, t in zip(prompts, texts, strict=True)]
