"""Exporting the adapter alone, checked by plain peft on the resized base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.atomic import atomic_dir
from persianmind.common.errors import ExportError
from persianmind.model.export.adapter import write_adapter
from persianmind.model.export.tokenizer_files import write_tokenizer
from persianmind.publish.check import (
    TOLERANCE,
    check_prompts,
    check_texts,
    check_token_ids,
    exported_losses,
    largest_difference,
)
from persianmind.publish.export import AddFiles, Reference, chat_form, made_from
from persianmind.publish.manifest import write_export_manifest
from persianmind.publish.origin import base_origin
from persianmind.publish.weights import TrainedRun
from persianmind.run.records import ExportResult

if TYPE_CHECKING:
    import torch


def export_adapter(
    run: TrainedRun,
    out: Path,
    reference: Reference,
    device: torch.device,
    *,
    adapter_scale: float = 1.0,
    add_files: AddFiles = lambda folder: None,
) -> tuple[ExportResult, int]:
    """Writes and checks the PEFT folder `out`, tokenizer beside; it appears whole and checked, or not at all.

    Args:
        run: what was trained.
        out: must not exist.
        reference: losses over the 16-bit base, which is what peft will add the adapter to.
        device: where the check computes.
        adapter_scale: factor on every adapter's delta.
        add_files: puts further files into the folder before its manifest is written.

    Returns:
        What was compared, and the bytes of whole tables in it.

    Raises:
        ExportError: `out` exists, or token ids, prompts or the loss by plain peft are not the trained ones.
    """
    if out.exists():
        raise ExportError(f"{out} exists; give another --out, or remove it first")
    form = chat_form(run)
    # A base that was made here is not quite the one that the Hub has by its name.
    made_here = "://" in run.recipe.base
    base_name = None if made_here else base_origin(run.recipe.base, run.base).hub_id
    with atomic_dir(out) as folder:
        whole_bytes = write_adapter(folder, run.base, run.weights, base_name=base_name, scale=adapter_scale)
        write_tokenizer(run.folder.vocab, folder, chat_template=form.template, max_length=10**9)
        n_texts = check_token_ids(folder, run.folder.vocab, check_texts(run.recipe, run.folder))
        n_dialogues = check_prompts(folder, form, run.recipe)
        losses = exported_losses(
            load_adapter(folder, run, device), reference.batches, device, run.expansion.size
        )
        worst = largest_difference(reference.expected, [float(loss) for loss in losses])
        tolerance = TOLERANCE["bfloat16" if run.recipe.train.precision == "bf16" else "float32"]
        if worst > tolerance:
            raise ExportError(
                f"{out}: plain peft gives a loss that differs by {worst:.2%} (at most {tolerance:.2%} is "
                "rounding); nothing was exported: report the package versions"
            )
        add_files(folder)
        result = ExportResult(
            relative_loss_difference=worst, tolerance=tolerance, n_texts=n_texts, n_dialogues=n_dialogues
        )
        write_export_manifest(
            folder, kind="adapter", adapter_scale=adapter_scale, check=result, **made_from(run)
        )
    return result, whole_bytes


def load_adapter(folder: Path, run: TrainedRun, device: torch.device) -> Any:
    """The adapter on its base by plain transformers and peft, as its users load it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from persianmind.model.adapted import DTYPES

    options = {} if device.type == "cpu" else {"device_map": {"": device}}
    model = AutoModelForCausalLM.from_pretrained(
        run.base, dtype=DTYPES[run.recipe.train.precision], use_safetensors=True, **options
    )
    model.resize_token_embeddings(run.expansion.size, mean_resizing=False)
    return PeftModel.from_pretrained(model, folder).eval()
