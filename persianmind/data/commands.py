"""`persianmind data build | inspect | check`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.errors import RecipeError

if TYPE_CHECKING:
    from persianmind.data.build.job import BuildProgress
    from persianmind.data.manifest import Manifest
    from persianmind.data.read.dataset import TokenDataset
    from persianmind.recipe import Recipe

app = typer.Typer(no_args_is_help=True)
HELD_OUT = "heldout"  # beside the folders of the sources

RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="A shipped recipe's name or a .yaml file: all its sources.")
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option("--source", help="A file, glob, folder, URL, hf:// or package://; several give one source."),
]
KindOption = Annotated[str, typer.Option(help="Records of --source: text or instruction.")]
LanguageOption = Annotated[str, typer.Option(help="Language of --source, an ISO 639 code.")]
FieldOption = Annotated[str, typer.Option(help="Field or column of --source that holds the text.")]
OverrideArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Settings of the recipe (data.seq_len=1024), or further URIs of --source."),
]
# What tells a setting from a URI among the arguments: hf://owner/name?split=test is no setting.
_SETTING = re.compile(r"[a-z_]+(\.[A-Za-z0-9_-]+)+=")


@app.command()
def build(
    tokenizer: Annotated[Path, typer.Option(help="Hugging Face tokenizer folder (tokenizer.json).")],
    out: Annotated[Path, typer.Option(help="Output folder; each source gets a folder of its name in it.")],
    recipe: RecipeOption = None,
    source: SourceOption = None,
    seq_len: Annotated[int | None, typer.Option(help="Tokens per sequence.")] = None,
    kind: KindOption = "text",
    language: LanguageOption = "fa",
    text_field: FieldOption = "text",
    workers: Annotated[int, typer.Option(min=1, help="Processes that clean and tokenise.")] = 1,
    overrides: OverrideArgument = None,
    as_json: JsonFlag = False,
) -> None:
    """Pack sources into token shards; run again after an interruption to go on."""
    from persianmind.data.build.builder import build_source
    from persianmind.data.build.source import source_job
    from persianmind.text.heldout import write_held_out
    from persianmind.text.stream import check_sources

    settings = list(overrides or [])
    if seq_len is not None:
        settings.append(f"data.seq_len={seq_len}")
    plan = _recipe(recipe, source, kind, language, text_field, settings)
    check_sources(plan.sources)
    heldout = out / HELD_OUT
    write_held_out(plan, heldout)
    jobs = [
        source_job(plan, name, tokenizer=tokenizer, out=out / name, heldout=heldout) for name in plan.sources
    ]
    report = None if as_json else _print_progress
    manifests = [build_source(job, report, workers=workers) for job in jobs]
    if as_json:
        emit_json(summary(manifests))
    else:
        _show(manifests)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A folder of token shards, or one that holds several.")],
    sequence: Annotated[
        int | None, typer.Option(help="Show this sequence as text with its document borders.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Tokenizer folder, to show a sequence as text.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Check the hash of every shard.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Show what token shards hold, after checking every byte of them."""
    from persianmind.data.read.dataset import TokenDataset

    datasets = [TokenDataset(one) for one in _shard_folders(folder)]
    if verify:
        for dataset in datasets:
            dataset.verify()
    if sequence is None:
        manifests = [dataset.manifest for dataset in datasets]
        if as_json:
            emit_json(summary(manifests))
        else:
            _show(manifests)
        return
    if len(datasets) != 1:
        raise RecipeError(f"{folder} holds several sources; give --sequence with the folder of one of them")
    shown = _sequence_documents(datasets[0], sequence, tokenizer)
    if as_json:
        emit_json(shown)
    else:
        for number, document in enumerate(shown["documents"]):
            typer.echo(f"--- document {number}: {document['tokens']} tokens, {document['targets']} targets")
            typer.echo(document["text"])
        typer.echo(f"--- padding: {shown['padding']} tokens")


@app.command()
def check(
    recipe: RecipeOption = None,
    source: SourceOption = None,
    kind: KindOption = "text",
    language: LanguageOption = "fa",
    text_field: FieldOption = "text",
    overrides: OverrideArgument = None,
    as_json: JsonFlag = False,
) -> None:
    """The data doctor: read every record of the sources and say what is wrong with them. Writes nothing; ends
    with 1 where a build would not go through."""
    from persianmind.data import check_lines
    from persianmind.data.check import examine_source
    from persianmind.text.heldout import fingerprints_of, select_held_out
    from persianmind.text.spec import source_specs
    from persianmind.text.stream import check_sources

    plan = _recipe(recipe, source, kind, language, text_field, list(overrides or []))
    check_sources(plan.sources)
    evaluated = fingerprints_of(select_held_out(plan))
    specs = source_specs(plan, plan.sources)
    findings = {spec.name: examine_source(spec, evaluated, plan.data.max_bad_record_ratio) for spec in specs}
    if as_json:
        emit_json({"sources": {name: finding.as_json() for name, finding in findings.items()}})
    else:
        emit_table("sources", check_lines.HEADER, check_lines.table(findings))
        for name, finding in findings.items():
            for line in check_lines.reasons(name, finding, plan.sources[name]):
                typer.echo(line)
    if not all(finding.is_usable for finding in findings.values()):
        raise typer.Exit(1)


def summary(manifests: list[Manifest]) -> dict[str, Any]:
    """Totals over sources, and each source's own counts, as JSON."""
    sequences = sum(m.sequences for m in manifests)
    positions = sum(m.sequences * m.seq_len for m in manifests)
    tokens = sum(m.tokens for m in manifests)
    return {
        "sequences": sequences,
        "tokens": tokens,
        "targets": sum(m.targets for m in manifests),
        "fill": tokens / positions if positions else 0.0,
        "documents": sum(m.documents for m in manifests),
        "documents_cut": sum(m.documents_cut for m in manifests),
        "documents_held_out": sum(m.documents_held_out for m in manifests),
        "tokens_lost": sum(m.tokens_lost for m in manifests),
        "rejected": _added(m.rejected for m in manifests),
        "dropped": _added({k: v.count for k, v in m.dropped.items()} for m in manifests),
        "sources": {m.source: m.model_dump(mode="json", exclude={"shards"}) for m in manifests},
    }


def _added(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for reason, count in one.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _recipe(
    name: str | None, uris: list[str] | None, kind: str, language: str, text_field: str, settings: list[str]
) -> Recipe:
    """The recipe named, or one made of the sources given."""
    from persianmind.recipe.loading import load_recipe, parse_recipe
    from persianmind.recipe.overrides import apply_override

    if (name is None) == (not uris):
        raise RecipeError("give either --recipe or one or more --source")
    if uris:
        # --source *.jsonl, as the shell expands it: the first file follows the flag, the others stand alone
        uris = uris + [setting for setting in settings if not _SETTING.match(setting)]
        settings = [setting for setting in settings if _SETTING.match(setting)]
    if name is not None:
        return load_recipe(name, settings)
    entry = {"uri": uris, "kind": kind, "language": language, "text_field": text_field}
    tree: dict[str, Any] = {
        "name": "data",
        "base": "none",
        "sources": {"source": entry},
        "stages": [{"name": "all", "sources": {"source": 1.0}, "epochs": 1.0}],
    }
    for setting in settings:
        apply_override(tree, setting)
    return parse_recipe(tree, place="command line")


def _shard_folders(folder: Path) -> list[Path]:
    """The folder itself, or those directly inside that hold a manifest."""
    from persianmind.data.manifest import MANIFEST

    inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return inside if inside and not (folder / MANIFEST).is_file() else [folder]


def _sequence_documents(dataset: TokenDataset, index: int, tokenizer_dir: Path | None) -> dict[str, Any]:
    """The documents of one sequence, as text where a tokenizer is given."""
    from persianmind.tokenizer import FolderTokenizer

    if not 0 <= index < len(dataset):
        raise RecipeError(f"--sequence {index}: {dataset.folder} has the sequences 0 to {len(dataset) - 1}")
    tokenizer = None if tokenizer_dir is None else FolderTokenizer(tokenizer_dir)
    if tokenizer is not None and tokenizer.fingerprint() != dataset.manifest.fingerprints.tokenizer:
        raise RecipeError(f"{tokenizer_dir} is not the tokenizer that {dataset.folder} was built with")
    sequence = dataset.sequence(index)
    documents, start = [], 0
    for length in dataset.doc_lengths(index).tolist():
        ids = sequence.input_ids[start : start + length].tolist()
        targets = int((sequence.labels[start : start + length] >= 0).sum())
        text = " ".join(map(str, ids)) if tokenizer is None else tokenizer.decode(ids)
        documents.append({"tokens": length, "targets": targets, "text": text})
        start += length
    return {"sequence": index, "documents": documents, "padding": len(sequence.input_ids) - start}


def _print_progress(progress: BuildProgress) -> None:
    typer.echo(
        f"{progress.source}: {progress.records_read:,} records read, {progress.tokens:,} tokens, "
        f"{progress.sequences:,} packed sequences, {progress.shards} shards, {progress.rejected} bad, "
        f"file {min(progress.files_done + 1, progress.files_total)} of {progress.files_total}, "
        f"{progress.elapsed_s:.0f} s",
        err=True,
    )


def _show(manifests: list[Manifest]) -> None:
    header = [
        "source",
        "sequences",
        "tokens",
        "targets",
        "fill",
        "documents",
        "cut",
        "lost",
        "bad",
        "dropped",
    ]
    emit_table(
        "token shards",
        header,
        [
            [
                m.source,
                f"{m.sequences:,}",
                f"{m.tokens:,}",
                f"{m.targets:,}",
                f"{m.fill:.2%}",
                f"{m.documents:,}",
                f"{m.documents_cut:,}",
                m.tokens_lost,
                _counts(m.rejected),
                _counts({reason: one.count for reason, one in m.dropped.items()}),
            ]
            for m in manifests
        ],
    )
    for m in manifests:
        for damaged in m.damaged_files:
            typer.echo(f"{m.source}: the rest of {damaged} could not be read", err=True)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items())) or "0"
