"""Exporting a GGUF straight from base and trained weights: no Hugging Face copy of the model lies between."""

from __future__ import annotations

from pathlib import Path

from persianmind.common.atomic import atomic_dir
from persianmind.common.disk import scratch_folder
from persianmind.common.errors import ExportError
from persianmind.model.export.gguf.plan import GgufDtype
from persianmind.model.export.gguf.write import export_gguf
from persianmind.model.export.hf import ExportSettings, merged_tensors, write_without_weights
from persianmind.publish.check import check_prompts, check_texts, check_token_ids
from persianmind.publish.export import AddFiles, chat_form, made_from, warn_of_changed_hash
from persianmind.publish.manifest import write_export_manifest
from persianmind.publish.weights import TrainedRun


def export_gguf_folder(
    run: TrainedRun,
    out: Path,
    dtype: GgufDtype,
    settings: ExportSettings,
    *,
    pre_tokenizer: str | None = None,
    add_files: AddFiles = lambda folder: None,
) -> Path:
    """Writes the folder `out` with NAME.gguf and an Ollama Modelfile; it appears whole or not at all.

    Args:
        run: what was trained.
        out: must not exist.
        dtype: of the matrices.
        settings: padding, adapter scale; matrices are merged in `settings.dtype` before they are cast.
        pre_tokenizer: llama.cpp's name for the pre-tokenizer, where its hash is unknown.
        add_files: puts further files into the folder before its manifest is written.

    Returns:
        The file.

    Raises:
        ExportError: `out` exists, or token ids or prompts are not the trained ones.
        BaseModelError: llama.cpp would not load the model, or would compute or tokenise otherwise.
    """
    if out.exists():
        raise ExportError(f"{out} exists; give another --out, or remove it first")
    form = chat_form(run)
    tensors = merged_tensors(run.base, run.weights, settings)
    with scratch_folder("persianmind-gguf-") as parts, atomic_dir(out) as folder:
        write_without_weights(
            parts, run.base, run.folder.vocab, form, vocab_size=tensors.vocab_size, dtype=settings.dtype
        )
        check_token_ids(parts, run.folder.vocab, check_texts(run.recipe, run.folder))
        check_prompts(parts, form, run.recipe)
        file = export_gguf(
            parts, folder / f"{run.recipe.name}-{dtype}.gguf", dtype=dtype, tensors=tensors,
            pre_tokenizer=pre_tokenizer, base=run.base,
        )  # fmt: skip
        warn_of_changed_hash(run)
        add_files(folder)
        write_export_manifest(
            folder, kind="gguf", adapter_scale=settings.adapter_scale, check=None, **made_from(run)
        )
    return out / file.name
