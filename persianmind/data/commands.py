"""`persianmind data build | inspect | show | stats | check`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.common.errors import RecipeError
from persianmind.common.log import print_line, print_text
from persianmind.data.options import (
    FieldOption,
    KindOption,
    LanguageOption,
    OverrideArgument,
    RecipeOption,
    SourceOption,
    recipe_of,
)

if TYPE_CHECKING:
    from persianmind.data.build.job import BuildProgress
    from persianmind.data.manifest import Manifest

app = typer.Typer(no_args_is_help=True)
HELD_OUT = "heldout"  # beside the folders of the sources


@app.command()
def build(
    tokenizer: Annotated[Path, typer.Option(help="Hugging Face tokenizer folder (tokenizer.json).")],
    out: Annotated[Path, typer.Option(help="Output folder; each source gets a folder in it.")],
    recipe: RecipeOption = None,
    source: SourceOption = None,
    seq_len: Annotated[int | None, typer.Option(help="Tokens per sequence.")] = None,
    kind: KindOption = "text",
    language: LanguageOption = DEFAULT_LANGUAGE,
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
    plan = recipe_of(recipe, source, kind, language, text_field, settings)
    check_sources(plan.sources)
    heldout = out / HELD_OUT
    write_held_out(plan, heldout)
    jobs = [
        source_job(plan, packing, tokenizer=tokenizer, out=out / packing.name, heldout=heldout)
        for name in plan.sources
        for packing in plan.packings_of(name)
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
    from persianmind.data.inspect import sequence_documents, shard_folders
    from persianmind.data.read.dataset import TokenDataset

    datasets = [TokenDataset(one) for one in shard_folders(folder)]
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
    shown = sequence_documents(datasets[0], sequence, tokenizer)
    if as_json:
        emit_json(shown)
    else:
        for number, document in enumerate(shown["documents"]):
            print_line(f"--- document {number}: {document['tokens']} tokens, {document['targets']} targets")
            print_text(document["text"])
        print_line(f"--- padding: {shown['padding']} tokens")


@app.command("show")
def show_records(
    source: Annotated[str, typer.Argument(help="A file, glob, folder, URL, hf:// or package://.")],
    tokenizer: Annotated[Path, typer.Option(help="Hugging Face tokenizer folder (tokenizer.json).")],
    record: Annotated[int, typer.Option(min=1, help="The first one shown, from 1.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="How many are shown.")] = 3,
    kind: KindOption = "text",
    language: LanguageOption = DEFAULT_LANGUAGE,
    text_field: FieldOption = "text",
    overrides: OverrideArgument = None,
    as_json: JsonFlag = False,
) -> None:
    """Show records of a source as the model will see them: decoded from their tokens, targets marked."""
    from persianmind.data.show import lines_of, shown_records

    plan = recipe_of(None, [source], kind, language, text_field, list(overrides or []))
    records = shown_records(plan, tokenizer, first=record, count=count)
    if as_json:
        emit_json({"records": [one.as_json() for one in records]})
        return
    for one in records:
        print_text("\n".join(lines_of(one)))


@app.command("stats")
def show_stats(
    tokenizer: Annotated[Path, typer.Option(help="Hugging Face tokenizer folder (tokenizer.json).")],
    recipe: RecipeOption = None,
    source: SourceOption = None,
    kind: KindOption = "text",
    language: LanguageOption = DEFAULT_LANGUAGE,
    text_field: FieldOption = "text",
    overrides: OverrideArgument = None,
    as_json: JsonFlag = False,
) -> None:
    """Lengths, languages, duplicates, tokens per word and tokens of every source, as they are trained on."""
    from persianmind.data.stats import STATS_HEADER, source_stats, stats_table

    plan = recipe_of(recipe, source, kind, language, text_field, list(overrides or []))
    found = source_stats(plan, tokenizer)
    if as_json:
        emit_json({"sources": {name: one.as_json() for name, one in found.items()}})
    else:
        emit_table("sources", STATS_HEADER, stats_table(found))


@app.command()
def check(
    recipe: RecipeOption = None,
    source: SourceOption = None,
    kind: KindOption = "text",
    language: LanguageOption = DEFAULT_LANGUAGE,
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

    plan = recipe_of(recipe, source, kind, language, text_field, list(overrides or []))
    check_sources(plan.sources)
    evaluated = fingerprints_of(select_held_out(plan))
    specs = source_specs(plan, plan.sources)
    findings = {spec.name: examine_source(spec, evaluated, plan.data) for spec in specs}
    if as_json:
        emit_json({"sources": {name: finding.as_json() for name, finding in findings.items()}})
    else:
        emit_table("sources", check_lines.HEADER, check_lines.table(findings))
        for name, finding in findings.items():
            for line in check_lines.reasons(name, finding, plan.sources[name]):
                print_line(line)
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
        "sources": {
            label: m.model_dump(mode="json", exclude={"shards"}) for label, m in _labelled(manifests).items()
        },
    }


def _labelled(manifests: list[Manifest]) -> dict[str, Manifest]:
    """By source; of one that was packed at several lengths, with the length behind an @."""
    often = Counter(m.source for m in manifests)
    return {m.source if often[m.source] == 1 else f"{m.source}@{m.seq_len}": m for m in manifests}


def _added(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for reason, count in one.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _print_progress(progress: BuildProgress) -> None:
    print_line(
        f"{progress.source}: {progress.records_read:,} records read, {progress.tokens:,} tokens, "
        f"{progress.sequences:,} packed sequences, {progress.shards} shards, {progress.rejected} bad, "
        f"file {min(progress.files_done + 1, progress.files_total)} of {progress.files_total}, "
        f"{progress.elapsed_s:.0f} s",
        sys.stderr,
    )


def _show(manifests: list[Manifest]) -> None:
    from persianmind.data.check_lines import files_left_out

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
                label,
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
            for label, m in _labelled(manifests).items()
        ],
    )
    for m in manifests:
        for damaged in m.damaged_files:
            print_line(f"{m.source}: the rest of {damaged} could not be read", sys.stderr)
        for line in files_left_out(m.source, m.files_left_out):
            print_line(line, sys.stderr)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items())) or "0"
