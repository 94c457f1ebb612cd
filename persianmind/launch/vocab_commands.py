"""`persianmind vocab build` and `report`: commands only; everything heavy is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.common.console import JsonFlag, emit_json, emit_table
from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.launch.vocab_plan_command import (
    BASE_HELP,
    TEXT_HELP,
    FieldOption,
    LanguageOption,
    base_path,
    vocab_plan,
)

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.command("plan")(vocab_plan)
BaseOption = Annotated[str, typer.Option("--base", help=BASE_HELP)]
TextOption = Annotated[list[str], typer.Option("--text", help=TEXT_HELP)]


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
        base_path(base),
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
    found = make_report(open_base(base_path(base)), open_base(expanded), files, profile)
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
