"""The end of a run, on rank 0 alone: export, proof of the export, samples, account, report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.energy.account import account
from persianmind.estimate.flops import weight_count
from persianmind.evaluate.chat_model import ChatModel
from persianmind.evaluate.generate import generation_mode
from persianmind.model.adapted import AdaptedModel
from persianmind.model.bases import resolve_base
from persianmind.model.export.hf import ExportSettings
from persianmind.publish.card import CARD, write_card
from persianmind.publish.check import load_exported
from persianmind.publish.export import export_model, is_export_of, reference_losses, remove_export
from persianmind.publish.manifest import (
    add_to_export_manifest,
    read_export_manifest,
    require_whole_export,
)
from persianmind.publish.weights import TrainedRun, run_in_memory
from persianmind.recipe import Recipe
from persianmind.run.folder import RunFolder
from persianmind.run.log import add_samples, update_results
from persianmind.run.records import ExportResult, ModelSize, Phase, SampleText
from persianmind.train.callbacks.save import package_versions
from persianmind.train.determinism import set_strict
from persianmind.train.summary import summary_lines

if TYPE_CHECKING:
    import torch

    from persianmind.energy.meter.client import EnergyMeter

logger = logging.getLogger(__name__)


def finish_run(
    recipe: Recipe,
    folder: RunFolder,
    model: AdaptedModel,
    step: int,
    meter: EnergyMeter | None,
    write_report: Callable[[Path], Path],
) -> None:
    """Writes export/, the last parts of results.json and report.html, and logs the table.

    step: how many steps were trained.
    """
    set_strict(False)  # the trial covered a training step, nothing of what comes now
    changes: dict[str, Any] = {"model": model_size(model), "versions": package_versions()}
    if recipe.export.enabled:
        if meter is not None:
            meter.mark(Phase.EXPORT, 0)
        device = model.output_table.base_VD.device
        changes["export"] = _export(run_in_memory(folder, recipe, model, step), model, device)
        add_samples(folder, _samples(recipe, folder, device))
    if meter is not None:
        meter.stop()
    changes["energy"] = account(folder)
    results = update_results(folder, **changes)
    if recipe.export.enabled:
        write_card(recipe, folder, folder.export, results, base=resolve_base(recipe.base))
        add_to_export_manifest(folder.export, CARD)
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


def _export(run: TrainedRun, model: AdaptedModel, device: torch.device) -> ExportResult | None:
    """Writes and checks export/, unless it is there as it is asked for; the trained model is released.

    Raises:
        ExportError: what an earlier call wrote is damaged, or what was written now is not the trained model.
    """
    out = run.folder.export
    settings = ExportSettings(run.recipe.export.dtype, run.recipe.export.pad_vocab_to_multiple)
    if out.exists():
        if is_export_of(out, run, settings):
            model.release()
            require_whole_export(out)
            return read_export_manifest(out).check
        remove_export(out)
    logger.info(f"export: merging into {out}")
    return export_model(run, out, reference_losses(run, device, model), device, settings)


def _samples(recipe: Recipe, folder: RunFolder, device: torch.device) -> list[SampleText]:
    """What the exported folder writes, loaded by transformers alone."""
    if not recipe.evaluate.prompts:
        return []
    exported = load_exported(folder.export, device)
    model = ChatModel.of_recipe(exported, folder.export, recipe)
    with generation_mode(exported):
        return [
            SampleText(
                prompt=prompt,
                text=model.sample(prompt, max_new_tokens=recipe.evaluate.max_new_tokens),
                stage=Phase.EXPORT,
            )
            for prompt in recipe.evaluate.prompts
        ]
