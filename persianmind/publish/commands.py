"""`persianmind export` and `persianmind verify`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.errors import DamagedFileError, ExportError, UsageError
from persianmind.common.log import print_line

if TYPE_CHECKING:
    import torch

    from persianmind.model.export.hf import ExportSettings
    from persianmind.publish.sweep import ScaleScore
    from persianmind.publish.weights import TrainedRun


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder, such as runs/demo.")],
    out: Annotated[Path | None, typer.Option(help="The folder to write; it must not exist.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="STEP", help="A checkpoint's step; without it, the newest good one.")
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format", metavar="hf|adapter|gguf", help="A merged model, a PEFT adapter, or a GGUF file."
        ),
    ] = "hf",
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16 or float32; for gguf f32, f16, bf16 or q8_0.")
    ] = None,
    pre_tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="For gguf, where llama.cpp does not know the tokenizer by its hash."
        ),
    ] = None,
    adapter_scale: Annotated[
        float, typer.Option(min=0.0, help="Factor on what the adapters add; 1 is as trained.")
    ] = 1.0,
    pad_vocab_to_multiple: Annotated[
        int | None, typer.Option(min=1, help="Add unused ids at the end up to a multiple of this.")
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="0.6,0.8,1.0", help="Score these adapter scales on held-out text instead."),
    ] = None,
    max_english_loss: Annotated[
        float, typer.Option(min=0.0, help="Bits per byte that English may lose to the base, for --sweep.")
    ] = 0.02,
    device: Annotated[str, typer.Option(help="Where the check computes: cpu, cuda or cuda:1.")] = "cpu",
    push: Annotated[
        str | None, typer.Option(metavar="owner/name", help="Upload the folder by your own hub login.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the pushed repository public.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the model of a run, from its newest or any other checkpoint; needs no GPU.

    The folder appears whole, and only after its token ids, prompts, loss and stops were compared with the
    trained model's.
    """
    if (out is None) == (sweep is None):
        raise UsageError("give --out DIR to write a model, or --sweep 0.6,0.8,1.0 to compare scales")
    _check_type(format_, dtype)
    if push is not None and out is not None:
        from persianmind.publish.push import check_push

        check_push(push)
        if out.exists():  # an upload that was cut off goes on: the model was written before it began
            _show({"out": str(out), "pushed": _push(out, push, public)}, as_json)
            return
    if out is not None and out.exists():
        raise ExportError(f"{out} exists; give another --out, or remove it first")

    from persianmind.model.export.hf import ExportSettings
    from persianmind.publish.weights import read_trained_run
    from persianmind.run.folder import RunFolder

    _prepare_libraries()
    where = _device(device)
    trained = read_trained_run(RunFolder(run), checkpoint)
    if sweep is not None:
        _sweep(trained, _scales(sweep), where, max_english_loss, as_json)
        return
    assert out is not None
    settings = ExportSettings(
        dtype if format_ == "hf" and dtype else trained.recipe.export.dtype,
        pad_vocab_to_multiple or trained.recipe.export.pad_vocab_to_multiple,
        adapter_scale,
    )
    facts = _write(trained, out, format_, dtype, settings, where, pre_tokenizer)
    if push is not None:
        facts["pushed"] = _push(out, push, public)
    _show(facts, as_json)


def verify(
    path: Annotated[
        Path, typer.Argument(help="A run, an export, a checkpoint, a vocabulary or a data folder.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Compare every byte with its checksum; exit code 0 only when all is as it was written."""
    from persianmind.publish.verify import verify_path

    verdicts = verify_path(path)
    damaged = [one for one in verdicts if one.problems]
    if as_json:
        parts = [{"part": str(one.part), "what": one.what, "problems": one.problems} for one in verdicts]
        emit_json({"path": str(path), "whole": not damaged, "parts": parts})
    else:
        lines = [(_below(path, one.part), one.what, "; ".join(one.problems) or "whole") for one in verdicts]
        emit_table(f"{path}: {len(verdicts)} parts, {len(damaged)} damaged", ["part", "is", "verdict"], lines)
    if damaged:
        raise DamagedFileError(
            f"{len(damaged)} of {len(verdicts)} parts of {path} are damaged: {damaged[0].problems[0]}"
        )


def _write(
    run: TrainedRun,
    out: Path,
    format_: str,
    dtype: str | None,
    settings: ExportSettings,
    device: torch.device,
    pre_tokenizer: str | None,
) -> dict[str, Any]:
    """Writes the folder; returns what to say about it."""
    from persianmind.publish.adapter import export_adapter
    from persianmind.publish.card import write_card
    from persianmind.publish.export import export_model, reference_losses, variant_of
    from persianmind.publish.gguf import export_gguf_folder
    from persianmind.run.log import read_results

    def add_card(folder: Path) -> None:
        results, variant = read_results(run.folder), variant_of(run, settings)
        write_card(run.recipe, run.folder, folder, results, base=run.base, variant=variant)

    facts: dict[str, Any] = {"out": str(out), "format": format_, "step": run.step, "stage": run.stage}
    if format_ == "gguf":
        whole = replace(settings, dtype="float32")
        kind: Any = dtype or "f16"
        file = export_gguf_folder(run, out, kind, whole, pre_tokenizer=pre_tokenizer, add_files=add_card)
        return facts | {"file": str(file)}
    reference = reference_losses(run, device, adapter_scale=settings.adapter_scale)
    if format_ == "adapter":
        scale = settings.adapter_scale
        result, facts["whole_table_bytes"] = export_adapter(
            run, out, reference, device, adapter_scale=scale, add_files=add_card
        )
    else:
        result = export_model(run, out, reference, device, settings, add_files=add_card)
    return facts | {"check": result.model_dump(mode="json")}


def _push(out: Path, repo_id: str, public: bool) -> str:
    """Uploads a whole export; returns the repository's address."""
    from persianmind.publish.push import push as push_folder

    return push_folder(out, repo_id, private=not public)


def _sweep(
    run: TrainedRun, scales: list[float], device: torch.device, max_english_loss: float, as_json: bool
) -> None:
    from persianmind.publish.sweep import best_scale, english_of_base, sweep_scales

    scores = sweep_scales(run, scales, device)
    best = best_scale(run, scores, max_english_loss)
    if as_json:
        rows = [{"scale": one.scale, "bits_per_byte": dict(one.bits_per_byte)} for one in scores]
        base = english_of_base(run)
        emit_json({"scores": rows, "base_english": base, "best": None if best is None else best.scale})
        return
    _show_sweep(run, scores, best, max_english_loss)


def _show_sweep(
    run: TrainedRun, scores: list[ScaleScore], best: ScaleScore | None, max_english_loss: float
) -> None:
    languages = list(scores[0].bits_per_byte)
    lines = [(f"{one.scale:g}", *(f"{one.bits_per_byte[name]:.4f}" for name in languages)) for one in scores]
    emit_table(f"{run.folder}: bits per byte by adapter scale", ["scale", *languages], lines)
    if best is None:
        print_line(f"at every scale English rises by more than {max_english_loss:g} bits per byte")
        return
    print_line(
        f"lowest with English at most {max_english_loss:g} bits per byte above the base: "
        f"--adapter-scale {best.scale:g}"
    )


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(facts)
        return
    if "format" in facts:
        what = facts.get("file", facts["out"])
        print_line(f"wrote {what} ({facts['format']}, step {facts['step']}, stage {facts['stage']})")
    if check := facts.get("check"):
        print_line(
            f"checked: loss within {check['relative_loss_difference']:.2e} of the trained model (at most "
            f"{check['tolerance']:.0e}), ids of {check['n_texts']} texts, {check['n_dialogues']} prompts"
        )
    if "pushed" in facts:
        print_line(f"uploaded {facts['out']} to {facts['pushed']}")


def _scales(text: str) -> list[float]:
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(0.0 <= one < 100.0 for one in scales):
        raise UsageError(f"--sweep {text}: give scales between 0 and 100, such as 0.6,0.8,1.0")
    return scales


def _below(path: Path, part: Path) -> str:
    """A part's place in what was verified."""
    return part.relative_to(path).as_posix() if part != path else part.name


def _prepare_libraries() -> None:
    """Quiet ones: the screen is for what was written and how it compares."""
    import warnings

    from persianmind.engine.registry import backend

    backend().prepare_environment()
    from transformers.utils import logging

    logging.disable_progress_bar()
    # peft 0.21 asks transformers 5.23 by an older name.
    warnings.filterwarnings(
        "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
    )


def _check_type(format_: str, dtype: str | None) -> None:
    known = {
        "hf": ("bfloat16", "float32"),
        "adapter": (),
        "gguf": ("f32", "f16", "bf16", "q8_0"),
    }
    if format_ not in known:
        raise UsageError(f"--format {format_}: give hf, adapter or gguf")
    if dtype is not None and dtype not in known[format_]:
        allowed = ", ".join(known[format_]) or "none: an adapter is in the precision it was trained in"
        raise UsageError(f"--dtype {dtype}: --format {format_} knows {allowed}")


def _device(name: str) -> torch.device:
    import torch

    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: give cpu, cuda or cuda:1") from None
