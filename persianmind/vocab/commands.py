"""`persianmind vocab ...`: commands only; everything heavy is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.common.errors import VocabError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

BaseOption = Annotated[Path, typer.Option("--base", help="Tokenizer folder, or a tokenizer.model.")]
TextOption = Annotated[
    list[str], typer.Option("--text", help="Text: file, folder or glob; may be given several times.")
]
LanguageOption = Annotated[
    str, typer.Option("--language", help="Language of the text, as a code, or its profile, a .yaml file.")
]
FieldOption = Annotated[str, typer.Option("--text-field", help="Field of JSON and parquet records.")]


@app.command("build")
def vocab_build(
    base: BaseOption,
    text: TextOption,
    out: Annotated[Path, typer.Option("--out", help="New folder for the expanded tokenizer.")],
    language: LanguageOption = DEFAULT_LANGUAGE,
    new_tokens: Annotated[int, typer.Option("--new-tokens", min=0, help="Exactly N new pieces.")] = 10_000,
    train_size: Annotated[
        int | None, typer.Option("--train-size", help="Instead: all new pieces of a BPE of this size.")
    ] = None,
    pad_token: Annotated[bool, typer.Option("--pad-token", help="Add [PAD] as the last id.")] = False,
    text_field: FieldOption = "text",
    as_json: JsonFlag = False,
) -> None:
    """Learn pieces of a language from text, add them to a base tokenizer, and prove the result exact."""
    from persianmind.language import profile_named
    from persianmind.vocab.build import build_vocab
    from persianmind.vocab.texts import read_texts

    profile = profile_named(language)
    expansion = build_vocab(
        base,
        read_texts(text, text_field, profile=profile),
        out,
        new_tokens=new_tokens,
        train_size=train_size,
        pad_token=pad_token,
        profile=profile,
    )
    fertility = expansion.fertility.get(profile.code)
    summary = {
        "out": str(out),
        "family": expansion.family,
        "base_vocab": expansion.base_vocab,
        "added": expansion.added,
        "size": expansion.size,
        "pad_id": expansion.pad_id,
        "left_out": expansion.left_out,
        "fertility_before": fertility.before if fertility else None,
        "fertility_after": fertility.after if fertility else None,
        "fingerprint": expansion.fingerprint,
    }
    if as_json:
        emit_json(summary)
    else:
        emit_table("Expanded tokenizer", ("", ""), list(summary.items()))


@app.command("report")
def vocab_report(
    base: BaseOption,
    expanded: Annotated[Path, typer.Option("--expanded", help="Folder of the expanded tokenizer.")],
    text: TextOption,
    language: LanguageOption = DEFAULT_LANGUAGE,
    text_field: FieldOption = "text",
    plot: Annotated[Path | None, typer.Option("--plot", help="Write the fertility chart as SVG.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tokens per word, characters per token, words left whole, dead pieces: base and expanded, per file."""
    from persianmind.common.atomic import write_text
    from persianmind.language import profile_named
    from persianmind.vocab.families import open_base
    from persianmind.vocab.report import fertility_svg, make_report
    from persianmind.vocab.texts import read_texts, text_files

    profile = profile_named(language)
    files = {
        file.name: read_texts([file.uri], text_field, profile=profile)
        for file in text_files(text, text_field)
    }
    found = make_report(open_base(base), open_base(expanded), files, profile)
    if plot is not None:
        write_text(plot, fertility_svg(found))
    if as_json:
        emit_json(found.to_json())
        return
    lines = [
        (
            file.name,
            f"{file.words:,}",
            f"{file.base.tokens_per_word:.2f} -> {file.expanded.tokens_per_word:.2f}",
            f"{file.base.characters_per_token:.2f} -> {file.expanded.characters_per_token:.2f}",
            f"{file.base.whole_words:.1%} -> {file.expanded.whole_words:.1%}",
        )
        for file in (*found.files, found.total)
    ]
    title = f"{found.added:,} new ids: {len(found.unreachable)} unreachable, {len(found.unused)} unused here"
    emit_table(title, ("file", "words", "tokens/word", "characters/token", "words left whole"), lines)


@app.command("plan")
def vocab_plan(
    base: BaseOption,
    text: TextOption,
    sizes: Annotated[str, typer.Option("--sizes", help="Sizes to compare.")] = "2000,5000,10000,20000",
    words: Annotated[
        int | None, typer.Option("--words", min=1, help="Words of the training corpus; default: of --text.")
    ] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Model width, without a config.json.")] = None,
    parameters: Annotated[
        int | None, typer.Option(min=1, help="Parameters without the vocabulary tables.")
    ] = None,
    tied: Annotated[bool, typer.Option("--tied", help="Input and output tables are one.")] = False,
    ranks: Annotated[int, typer.Option(min=1, help="GPUs that share the optimizer state.")] = 1,
    gpu_gib: Annotated[float, typer.Option(min=1.0, help="Memory of one GPU.")] = 24.0,
    language: LanguageOption = DEFAULT_LANGUAGE,
    text_field: FieldOption = "text",
    as_json: JsonFlag = False,
) -> None:
    """Which number of new pieces pays: fertility against parameters, memory and compute."""
    from persianmind.language import profile_named
    from persianmind.vocab.build import read_corpus
    from persianmind.vocab.families import open_base
    from persianmind.vocab.plan import LLAMA_2_7B, ModelShape, check_sizes, make_plan, read_shape
    from persianmind.vocab.texts import read_texts

    try:
        wanted = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise VocabError(f"--sizes {sizes!r}: write whole numbers with commas, e.g. 2000,5000") from None
    check_sizes(wanted)
    if (hidden is None) != (parameters is None):
        raise VocabError("give --hidden and --parameters together, or neither")
    if hidden is not None and parameters is not None:
        shape = ModelShape(hidden, parameters, tied)
    else:
        shape = read_shape(base) or LLAMA_2_7B
    opened = open_base(base)
    profile = profile_named(language)
    corpus = read_corpus(opened, read_texts(text, text_field, profile=profile), profile)
    found = make_plan(
        opened,
        corpus,
        wanted,
        shape,
        corpus_words=words or corpus.words,
        ranks=ranks,
        gpu_gib=gpu_gib,
        profile=profile,
    )
    if as_json:
        emit_json(found.to_json())
        return
    lines = [
        (
            f"{c.new_tokens:,}{' *' if c.new_tokens == found.best else ''}",
            f"{c.tokens_per_word:.3f}",
            f"{c.corpus_tokens:,} ({c.tokens_saved:+.1%} saved)",
            f"{c.added_parameters / 1e6:.1f} M",
            f"{c.embeddings_gib:.2f} ({c.optimizer_gib:.2f})",
            f"{c.logits_ratio:.1%}",
            f"{c.relative_cost:.3f}",
            f"{c.rarest_piece:,}",
            "yes" if c.fits else "no",
        )
        for c in found.choices
    ]
    header = (
        "new pieces",
        "tokens/word",
        "corpus tokens",
        "parameters",
        "GiB per GPU (optimizer)",
        "part of logits",
        "compute, base = 1",
        "rarest piece",
        "fits",
    )
    emit_table(f"* pays most on a GPU of {gpu_gib:g} GiB", header, lines)
