"""`persianmind vocab ...`: verbs only; everything heavy is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persianmind.console import JsonFlag, emit_json, emit_table

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

BaseOption = Annotated[Path, typer.Option("--base", help="Tokenizer folder, or a tokenizer.model.")]
TextOption = Annotated[
    list[str], typer.Option("--text", help="Text: file, folder or glob; may be given several times.")
]
FieldOption = Annotated[str, typer.Option("--text-field", help="Field of JSON and parquet rows.")]


@app.command()
def build(
    base: BaseOption,
    text: TextOption,
    out: Annotated[Path, typer.Option("--out", help="New folder for the expanded tokenizer.")],
    new_tokens: Annotated[
        int, typer.Option("--new-tokens", min=0, help="Exactly so many new pieces.")
    ] = 10_000,
    train_size: Annotated[
        int | None, typer.Option("--train-size", help="Instead: all new pieces of a BPE of this size.")
    ] = None,
    pad_token: Annotated[bool, typer.Option("--pad-token", help="Add [PAD] as the last id.")] = False,
    text_field: FieldOption = "text",
    as_json: JsonFlag = False,
) -> None:
    """Learn Persian pieces from text, add them to a base tokenizer, and prove the result exact."""
    from persianmind.vocab.build import build_vocab
    from persianmind.vocab.texts import read_texts

    expansion = build_vocab(
        base,
        read_texts(text, text_field),
        out,
        new_tokens=new_tokens,
        train_size=train_size,
        pad_token=pad_token,
    )
    fertility = expansion.fertility
    summary = {
        "out": str(out),
        "family": expansion.family,
        "base_vocab": expansion.base_vocab,
        "added": expansion.added,
        "size": expansion.size,
        "pad_id": expansion.pad_id,
        "left_out": expansion.left_out,
        "fertility_before": fertility.before,
        "fertility_after": fertility.after,
        "fingerprint": expansion.fingerprint,
    }
    if as_json:
        emit_json(summary)
    else:
        emit_table("Expanded tokenizer", ("", ""), list(summary.items()))
