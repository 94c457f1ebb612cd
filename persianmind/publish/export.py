"""Writing a run's model: the folder appears whole, and only once it was checked."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from persianmind.common.atomic import atomic_dir
from persianmind.common.errors import ExportError
from persianmind.data.chat_form import ChatForm
from persianmind.data.read.batches import Batch
from persianmind.language import run_profile
from persianmind.model.bases import base_fingerprint
from persianmind.model.export.gguf.pretokenizer import changed_hash
from persianmind.model.export.hf import ExportSettings, write_merged
from persianmind.publish.check import (
    TOLERANCE,
    check_batches,
    check_prompts,
    check_stops,
    check_texts,
    check_token_ids,
    exported_losses,
    largest_difference,
    load_exported,
    trained_losses,
)
from persianmind.publish.manifest import (
    export_damage,
    read_export_manifest,
    write_export_manifest,
)
from persianmind.publish.weights import TrainedRun, adapted_model
from persianmind.run.log import read_results, read_steps
from persianmind.run.records import ExportResult
from persianmind.tokenizer import FolderTokenizer

if TYPE_CHECKING:
    import torch

    from persianmind.model.adapted import AdaptedModel

logger = logging.getLogger(__name__)
AddFiles = Callable[[Path], None]


@dataclass(slots=True)
class Reference:
    """Losses that the exported model must have, summed over each of `batches`, in nats.

    trained: of the model as it was trained. expected: of the same adapters over the 16-bit base, which is
    what is exported; the same where the base was not quantised.
    """

    batches: Sequence[Batch]
    trained: list[float] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)


def reference_losses(
    run: TrainedRun,
    device: torch.device,
    live: AdaptedModel | None = None,
    *,
    adapter_scale: float = 1.0,
) -> Reference:
    """Scores the trained model, one model at a time on the device.

    Args:
        run: what was trained.
        device: where to compute.
        live: the model as training left it; released here. None: it is built from the run.
        adapter_scale: factor on every adapter's delta, of a model that is built.
    """
    reference = Reference(check_batches(run.recipe, run.folder))
    model = adapted_model(run, device, adapter_scale=adapter_scale) if live is None else live
    reference.trained = _read(model, reference.batches)
    if run.recipe.train.quantize == "none":
        reference.expected = reference.trained
        return reference
    model = adapted_model(run, device, quantized=False, adapter_scale=adapter_scale)
    reference.expected = _read(model, reference.batches)
    return reference


def export_model(
    run: TrainedRun,
    out: Path,
    reference: Reference,
    device: torch.device,
    settings: ExportSettings = ExportSettings(),
    *,
    add_files: AddFiles = lambda folder: None,
) -> ExportResult:
    """Writes and checks the merged Hugging Face folder `out`; it appears whole and checked, or not at all.

    Args:
        run: what was trained.
        out: must not exist.
        reference: what it is compared with.
        device: where the exported model is loaded for the check.
        settings: precision, padding, adapter scale.
        add_files: puts further files into the folder before its manifest is written.

    Raises:
        ExportError: `out` exists, or what was written is not the trained model.
        BaseModelError: the base cannot be read, or holds a trained weight in another form.
    """
    if out.exists():
        raise ExportError(f"{out} exists; give another --out, or remove it first")
    form = chat_form(run)
    with atomic_dir(out) as folder:
        write_merged(folder, run.base, run.weights, run.folder.vocab, form, settings)
        warn_of_changed_hash(run)
        result = check_export(run, folder, form, reference, device, settings)
        add_files(folder)
        write_export_manifest(folder, kind="hf", check=result, **made_with(settings), **made_from(run))
    return result


def is_export_of(folder: Path, run: TrainedRun, settings: ExportSettings) -> bool:
    """Whether an exported folder was made from what the run has trained, with these settings.

    Raises:
        ExportError: it is no export of ours, or its manifest is damaged.
    """
    manifest = read_export_manifest(folder)
    wanted = {"kind": "hf", **made_with(settings), **made_from(run)}
    return all(getattr(manifest, key) == value for key, value in wanted.items())


def remove_export(folder: Path) -> None:
    """Removes an exported folder that is to be made again.

    Raises:
        ExportError: something in it is not as it was written, and may be somebody's work.
    """
    if problems := export_damage(folder):
        raise ExportError(
            f"{folder} is to be made again, with other settings, and {problems[0]}; move the folder away and "
            "run the same command"
        )
    shutil.rmtree(folder)


def check_export(
    run: TrainedRun,
    folder: Path,
    form: ChatForm,
    reference: Reference,
    device: torch.device,
    settings: ExportSettings,
) -> ExportResult:
    """Ids, prompts, loss and stops of an exported folder (`check.py`).

    Raises:
        ExportError: one of them is not the trained model's.
    """
    vocab = run.folder.vocab
    n_texts = check_token_ids(folder, vocab, check_texts(run.recipe, run.folder))
    n_dialogues = check_prompts(folder, form, run.recipe)
    exported = load_exported(folder, device)
    losses = exported_losses(exported, reference.batches, device, run.expansion.size)
    found = [float(loss) for loss in losses]
    check_stops(exported, folder, form, device)
    tolerance = TOLERANCE[settings.dtype]
    worst = largest_difference(reference.expected, found)
    if worst > tolerance:
        raise ExportError(
            f"{folder} does not match the trained model: its loss differs by {worst:.2%} (at most "
            f"{tolerance:.2%} is rounding); nothing was exported: report the package versions"
        )
    return ExportResult(
        relative_loss_difference=worst,
        tolerance=tolerance,
        losses=_per_token(reference, found),
        n_texts=n_texts,
        n_dialogues=n_dialogues,
    )


def warn_of_changed_hash(run: TrainedRun) -> None:
    """Says so where llama.cpp's converter cannot know the tokenizer of this run."""
    if (notice := changed_hash(run.folder.vocab, run.base)) is not None:
        logger.warning("export: %s", notice)


def chat_form(run: TrainedRun) -> ChatForm:
    """The form in which the run's dialogues were written."""
    prompt = run_profile(run.recipe).prompt
    return ChatForm.of(FolderTokenizer(run.folder.vocab), run.recipe.data.prompt, prompt)


def variant_of(run: TrainedRun, settings: ExportSettings) -> str | None:
    """How a model differs from the one that the run's results score; None where it is that one."""
    parts = []
    if not read_results(run.folder).finished or run.step != _last_step(run):
        parts.append(f"checkpoint of step {run.step}")
    if settings.adapter_scale != 1.0:
        parts.append(f"adapter scale {settings.adapter_scale:g}")
    return ", ".join(parts) or None


def _last_step(run: TrainedRun) -> int:
    """The last step that the run logged."""
    return max((record.step for record in read_steps(run.folder)), default=0)


def made_with(settings: ExportSettings) -> dict[str, object]:
    """The settings that an export's manifest records of a merged folder."""
    return {
        "dtype": settings.dtype,
        "pad_vocab_to_multiple": settings.pad_vocab_to_multiple,
        "adapter_scale": settings.adapter_scale,
    }


def made_from(run: TrainedRun) -> dict[str, object]:
    """The facts of an export's manifest that do not depend on its format."""
    return {
        "recipe": run.recipe.name,
        "step": run.step,
        "stage": run.stage,
        "weights": run.weights.fingerprint(),
        "base_fingerprint": base_fingerprint(run.base),
        "tokenizer_fingerprint": run.expansion.fingerprint,
        "languages": run.recipe.languages(),
        "normalise": run.recipe.normalise,
        "profiles": run.recipe.profiles,
    }


def _read(model: AdaptedModel, batches: Sequence[Batch]) -> list[float]:
    """The model's summed losses; the model is let go of."""
    losses = [float(loss) for loss in trained_losses(model, batches)]
    model.release()
    return losses


def _per_token(reference: Reference, found: Sequence[float]) -> dict[str, float]:
    n_tokens = max(1, sum(int((batch["labels"] >= 0).sum()) for batch in reference.batches))
    sums = {"trained": reference.trained, "exported": found}
    if reference.expected is not reference.trained:
        sums["unquantized"] = reference.expected
    return {name: sum(values) / n_tokens for name, values in sums.items()}
