"""The end of a run, on rank 0 alone: export, proof of the export, samples, account, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import PersianMindError
from persianmind.energy.account import account
from persianmind.engine.base import Batch
from persianmind.estimate.flops import weight_count
from persianmind.evaluate.generate import generate
from persianmind.evaluate.text import held_out_sequences
from persianmind.model.adapted import AdaptedModel
from persianmind.model.bases import resolve_base
from persianmind.model.documents import model_inputs, to_device
from persianmind.model.export.hf import export_merged
from persianmind.model.loss import IGNORED
from persianmind.publish.card import write_card
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import update_results
from persianmind.run.records import ExportResult, ModelSize, Phase, SampleText
from persianmind.text.heldout import read_held_out
from persianmind.train.callbacks.save import package_versions
from persianmind.train.determinism import set_strict
from persianmind.train.summary import summary_lines

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from persianmind.energy.meter.client import EnergyMeter

# Largest relative difference of the loss on held-out text between the trained and the merged model: adding
# a delta to a bf16 weight rounds it once more than keeping both apart.
EXPORT_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
# The merged model stands on the base as it lies on disk, the trained one on its 4-bit rounding: this lets
# through what nf4 itself costs in precision.
NF4_TOLERANCE = 0.15
logger = logging.getLogger(__name__)


def finish_run(
    recipe: Recipe,
    folder: RunFolder,
    model: AdaptedModel,
    meter: EnergyMeter | None,
    write_report: Callable[[Path], Path],
) -> None:
    """Writes export/, the last parts of results.json and report.html, and logs the table."""
    set_strict(False)  # the trial covered a training step, nothing of what comes now
    changes: dict[str, Any] = {"model": model_size(model), "versions": package_versions()}
    if recipe.export.enabled:
        if meter is not None:
            meter.mark(Phase.EXPORT, 0)
        logger.info(f"export: merging into {folder.export}")
        if not (folder.export / "config.json").is_file():
            export_merged(
                model,
                resolve_base(recipe.base),
                folder.vocab,
                folder.export,
                dtype=recipe.export.dtype,
                pad_vocab_to_multiple=recipe.export.pad_vocab_to_multiple,
            )
        device = model.output_table.base_VD.device
        changes["export"] = check_export(recipe, folder, model)
        changes["samples"] = _samples(recipe, folder, device)
    if meter is not None:
        meter.stop()
    changes["energy"] = account(folder)
    results = update_results(folder, **changes)
    if recipe.export.enabled:
        write_card(recipe, folder, folder.export, results, base=resolve_base(recipe.base))
    # Last of all: until this is written, the same command does the end of the run again.
    results = update_results(folder, finished=True)
    report = write_report(folder.path)
    for line in summary_lines(results):
        logger.info(line)
    logger.info(f"report: {report}")


def model_size(model: AdaptedModel) -> ModelSize:
    """Weights and ids of the trained model."""
    return ModelSize(
        parameters=sum(map(weight_count, model.parameters())),
        trained_parameters=sum(value.numel() for value in model.trained().values()),
        base_vocab=model.output_table.base_vocab,
        added_vocab=model.output_table.added_vocab,
    )


def check_export(recipe: Recipe, folder: RunFolder, model: AdaptedModel) -> ExportResult:
    """Loss of the trained and of the exported model on the first held-out sequence of each language.

    One after the other on the trained model's device: it is released before the exported one is loaded.

    Raises:
        PersianMindError: they differ by more than rounding explains.
    """
    device = model.output_table.base_VD.device
    batches = _first_held_out(recipe, folder)
    ours = _read(trained_losses(model, batches))
    model.release()
    theirs = _read(exported_losses(folder.export, batches, device))
    worst = max((abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True)), default=0.0)
    tolerance = NF4_TOLERANCE if recipe.train.quantize == "nf4" else EXPORT_TOLERANCE[recipe.export.dtype]
    if worst > tolerance:
        raise PersianMindError(
            f"{folder.export} does not match the trained model: its loss differs by {worst:.2%} "
            f"(at most {tolerance:.2%} is rounding); do not use it, and report the package versions"
        )
    return ExportResult(relative_loss_difference=worst, tolerance=tolerance)


def _first_held_out(recipe: Recipe, folder: RunFolder) -> list[Batch]:
    found: list[Batch] = []
    for language in recipe.held_out_languages():
        texts = [document.text for document in read_held_out(folder.heldout, language)]
        found += held_out_sequences(texts, folder.vocab, recipe.data.seq_len).sequences[:1]
    return found


def trained_losses(model: AdaptedModel, batches: Sequence[Batch]) -> list[Tensor]:
    """Summed loss of each batch, on the model's device; nothing waits for it."""
    import torch

    model.eval()
    with torch.no_grad():
        return [model(**model_inputs(batch, model.output_table.base_VD.device)) for batch in batches]


def exported_losses(export: Path, batches: Sequence[Batch], device: torch.device) -> list[Tensor]:
    """The same by transformers alone, from the folder."""
    import torch
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(
        export, use_safetensors=True, **({} if device.type == "cpu" else {"device_map": {"": device}})
    )
    exported.eval()
    losses = []
    for batch in batches:
        ids, positions, labels = (
            to_device(batch[name], device) for name in ("input_ids", "position_ids", "labels")
        )
        with torch.no_grad():
            logits = exported(input_ids=ids, position_ids=positions, use_cache=False).logits
        losses.append(
            torch.nn.functional.cross_entropy(
                logits[0].float(), labels[0], ignore_index=IGNORED, reduction="sum"
            )
        )
    return losses


def _read(losses: Sequence[Tensor]) -> list[float]:
    return [float(loss) for loss in losses]


def _samples(recipe: Recipe, folder: RunFolder, device: torch.device) -> list[SampleText]:
    prompts = recipe.evaluate.prompts
    if not prompts:
        return []
    texts = generate(folder.export, prompts, max_new_tokens=recipe.evaluate.max_new_tokens, device=device)
    return [
        SampleText(prompt=prompt, text=text, stage=Phase.EXPORT)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
