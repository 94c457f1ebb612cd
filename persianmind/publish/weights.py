"""The trained weights of a run, read from its checkpoints on any machine: no GPU, no process group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.checkpoint.retention import checkpoint_folders
from persianmind.checkpoint.verify import examine_checkpoint
from persianmind.common.errors import CheckpointError
from persianmind.engine.registry import backend
from persianmind.model.bases import base_fingerprint, resolve_base
from persianmind.model.export.trained import TrainedWeights
from persianmind.recipe import Recipe
from persianmind.recipe.loading import read_run_recipe
from persianmind.run.folder import RunFolder
from persianmind.vocab.expansion import Expansion, load_expansion

if TYPE_CHECKING:
    import torch

    from persianmind.model.adapted import AdaptedModel

ATTEMPTS = 3  # a run in progress may remove the checkpoint that is being read


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run and what it has trained up to a step. base: the folder of its base model."""

    folder: RunFolder
    recipe: Recipe
    base: Path
    expansion: Expansion
    weights: TrainedWeights
    step: int
    stage: str | None


def read_trained_run(folder: RunFolder, checkpoint: str | None = None) -> TrainedRun:
    """Reads a checkpoint, by default the newest good one; the run may go on meanwhile.

    Args:
        folder: the run.
        checkpoint: "step-200", or "200".

    Raises:
        RunFolderError: there is no run.
        CheckpointError: no such checkpoint, none that is whole, or one of another base or vocabulary.
        VocabError: the run's vocabulary is damaged.
    """
    folder.require()
    recipe = read_run_recipe(folder.recipe)
    expansion = load_expansion(folder.vocab)
    base = resolve_base(recipe.base)
    chosen, weights = _read(folder, checkpoint, recipe, expansion.base_vocab)
    if chosen.metadata.get("base_fingerprint") != (here := base_fingerprint(base)):
        raise CheckpointError(
            f"{chosen.path} was trained over another base than {base} is now (fingerprint "
            f"{chosen.metadata.get('base_fingerprint')} there, {here} here); restore the base's files"
        )
    if chosen.metadata.get("tokenizer_fingerprint") != expansion.fingerprint:
        raise CheckpointError(
            f"{chosen.path} was trained over another vocabulary than {folder.vocab} is now; restore its files"
        )
    return TrainedRun(folder, recipe, base, expansion, weights, chosen.step, chosen.metadata.get("stage"))


def run_in_memory(folder: RunFolder, recipe: Recipe, model: AdaptedModel, step: int) -> TrainedRun:
    """A run whose last stage has just ended, by the model as training left it."""
    return TrainedRun(
        folder,
        recipe,
        resolve_base(recipe.base),
        load_expansion(folder.vocab),
        TrainedWeights.of(model, recipe.adapter),
        step,
        recipe.stages[-1].name,
    )


def trained_model(
    folder: RunFolder, checkpoint: str | None = None, device: torch.device | str = "cpu"
) -> AdaptedModel:
    """The model of a run with the weights of a checkpoint (`read_trained_run`), in evaluation mode."""
    import torch

    return adapted_model(read_trained_run(folder, checkpoint), torch.device(device))


def adapted_model(
    run: TrainedRun, device: torch.device, *, quantized: bool = True, adapter_scale: float = 1.0
) -> AdaptedModel:
    """Base, vocabulary and adapters as they were trained.

    Args:
        run: what to build.
        device: where it is to live.
        quantized: whether a base that was trained over in 4 bits is loaded so.
        adapter_scale: factor on every adapter's delta.
    """
    from persianmind.model.adapted import build_adapted

    recipe = run.recipe
    if not quantized and recipe.train.quantize != "none":
        train = recipe.train.model_copy(update={"quantize": "none"})
        recipe = recipe.model_copy(update={"train": train})
    pieces = [piece.base_ids for piece in run.expansion.pieces]
    model = build_adapted(run.base, recipe, pieces, run.expansion.base_vocab, device).to(device).eval()
    parameters = model.trained()
    if parameters.keys() != run.weights.tensors.keys():
        other = sorted(parameters.keys() ^ run.weights.tensors.keys())
        raise CheckpointError(
            f"the checkpoint of step {run.step} does not fit this model: {', '.join(other[:3])}"
        )
    set_adapter_scale(model, run.weights, adapter_scale)
    return model


def set_adapter_scale(model: AdaptedModel, weights: TrainedWeights, scale: float) -> None:
    """Puts trained weights into their model, every adapter's delta times `scale`."""
    import torch

    parameters = model.trained()
    with torch.no_grad():
        for name, value in weights.tensors.items():
            parameters[name].copy_(value if ".lora_B." not in name else value.float() * scale)


def _read(
    folder: RunFolder, name: str | None, recipe: Recipe, base_vocab: int
) -> tuple[StoredCheckpoint, TrainedWeights]:
    """Newest first; once more from the start where the run removed what was being read."""
    problems: list[str] = []
    for _ in range(ATTEMPTS):
        for path in _candidates(folder, name):
            checkpoint, problems = examine_checkpoint(path)
            if checkpoint is None or problems:
                continue
            try:
                tensors = backend().trained_tensors(checkpoint)
            except CheckpointError as error:
                problems = [str(error)]
                continue
            return checkpoint, _as_trained(tensors, recipe, base_vocab)
    raise CheckpointError(f"no checkpoint of {folder} can be used: {'; '.join(problems[:3])}")


def _candidates(folder: RunFolder, name: str | None) -> list[Path]:
    """Newest first; a name that is not there is an error at once."""
    found = checkpoint_folders(folder.checkpoints) if folder.checkpoints.is_dir() else []
    if not found:
        raise CheckpointError(
            f"{folder} has no checkpoint yet; the first one comes at checkpoint.every_steps"
        )
    if name is None:
        return found
    wanted = name if name.startswith("step-") else f"step-{name}"
    chosen = [path for path in found if path.name == wanted or path.name.startswith(f"{wanted}.")]
    if not chosen:
        known = ", ".join(path.name for path in found)
        raise CheckpointError(f"{folder} has no checkpoint {name!r}; it has: {known}")
    return chosen


def _as_trained(masters: dict[str, torch.Tensor], recipe: Recipe, base_vocab: int) -> TrainedWeights:
    """fp32 masters in the precision in which the model computed with them."""
    from persianmind.model.adapted import DTYPES

    dtype = DTYPES[recipe.train.precision]
    return TrainedWeights({name: one.to(dtype) for name, one in masters.items()}, recipe.adapter, base_vocab)
