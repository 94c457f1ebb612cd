"""What a run was made of and what it stored: the recipe, the vocabulary, the data, the checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from persianmind.data.manifest import Manifest
from persianmind.report.languages import PageLanguage, shown_name, vocabulary_target
from persianmind.report.read import RunFiles
from persianmind.report.values import mappings, number, quotient, scalar_text, section
from persianmind.report.view import Cell, Facts, Table, count, figure, plain

SHOWN_PIECES = 48


@dataclass(frozen=True, slots=True)
class VocabularyView:
    """Sizes, tokens per word (None where not measured), and some new pieces as (text, base tokens).

    language: that of the pieces.
    """

    sizes: Facts
    fertility: Table | None
    pieces: list[tuple[str, int | None]]
    all_pieces: int
    language: PageLanguage


@dataclass(frozen=True, slots=True)
class DataView:
    """Each source as a line; `reasons` are sentences about what was set aside."""

    table: Table
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class RecipeView:
    """The recipe in short, and its stages."""

    facts: Facts
    stages: Facts


def vocabulary(run: RunFiles) -> VocabularyView | None:
    """Sizes, fertility before and after, and some of the new pieces."""
    vocab = run.vocab
    if not vocab:
        return None
    sizes = [
        ("tokenizer family", plain(scalar_text(vocab.get("family", "–")))),
        ("base vocabulary", count(number(vocab.get("base_vocab")))),
        ("new pieces", count(number(vocab.get("added")))),
    ]
    pieces = mappings(vocab.get("pieces"))
    lines = list(_fertility(run, section(vocab.get("fertility"))))
    fertility = Table(["language", "before", "after", "change"], lines) if lines else None
    return VocabularyView(sizes, fertility, _some_pieces(pieces), len(pieces), vocabulary_target(run))


def _fertility(run: RunFiles, by_language: dict[str, Any]) -> Iterator[list[Cell]]:
    for code, measured in by_language.items():
        before, after = (number(section(measured).get(key)) for key in ("before", "after"))
        if before is None and after is None:
            continue
        change = None if before is None or after is None else quotient(after - before, before, 100)
        yield [plain(shown_name(run, code)), figure(before, 2), figure(after, 2), figure(change, 0, "%")]


def _some_pieces(pieces: list[dict[str, Any]]) -> list[tuple[str, int | None]]:
    """Pieces from the whole range, most frequent first, so that also rare ones are seen."""
    step = max(1, len(pieces) // SHOWN_PIECES)
    shown = []
    for piece in pieces[::step][:SHOWN_PIECES]:
        base = piece.get("base_ids")
        if text := str(piece.get("text", "")).replace("▁", " ").strip():
            shown.append((text, len(base) if isinstance(base, list) else None))
    return shown


DATA_HEADER = (
    "source", "documents", "held out", "tokens", "sequences", "fill", "cut", "tokens lost", "set aside"
)  # fmt: skip


def data(run: RunFiles) -> DataView | None:
    """Each source: documents, sequences, fill, and what was set aside, by reason."""
    if not run.data:
        return None
    body, reasons = [], []
    for name, manifest in run.data.items():
        aside = _set_aside(manifest)
        stated = None if run.valid_recipe is None else run.valid_recipe.sources.get(name)
        licence = manifest.licence if stated is None else stated.licence  # may be stated after the build
        counts = (manifest.documents, manifest.documents_held_out, manifest.tokens, manifest.sequences)
        body.append([
            Cell(name, origin=", ".join(filter(None, (manifest.language, manifest.kind, licence)))),
            *(count(number(value)) for value in counts),
            figure(quotient(number(manifest.fill), 1, 100), 2, "%"),
            *(count(number(value)) for value in (manifest.documents_cut, manifest.tokens_lost)),
            count(number(sum(aside.values()))),
        ])  # fmt: skip
        reasons += [
            f"{name}: other {one.what} from step {one.step + 1:,} on"
            for one in run.results.data_changes
            if one.source == name
        ]
        reasons += [f"{name}: {amount:,} × {reason.replace('_', ' ')}" for reason, amount in aside.items()]
    return DataView(Table(DATA_HEADER, body), reasons)


def _set_aside(manifest: Manifest) -> dict[str, int]:
    """Bad records by reason and records that a quality filter dropped, by filter."""
    aside = dict(manifest.rejected)
    aside.update({name: report.count for name, report in manifest.dropped.items()})
    aside["damaged file"] = len(manifest.damaged_files)
    return {reason: amount for reason, amount in aside.items() if amount}


def checkpoints(run: RunFiles) -> Table | None:
    """What is stored."""
    if not run.checkpoints:
        return None
    body = [
        [
            plain(item.path.name), plain(item.metadata.get("stage", "–")),
            count(number(item.step)), count(number(item.world_size)),
            figure(quotient(number(item.size_bytes), 1e6), 1, "MB"), plain(item.saved_at),
        ]
        for item in run.checkpoints
    ]  # fmt: skip
    return Table(["checkpoint", "stage", "step", "ranks", "size", "saved"], body)


def recipe(run: RunFiles) -> RecipeView | None:
    """What was asked for."""
    return RecipeView(list(_recipe_facts(run)), list(_stages(run))) if run.recipe else None


def _recipe_facts(run: RunFiles) -> Iterator[tuple[str, Cell]]:
    recipe, model = run.recipe, run.results.model
    train, adapter, vocab, packing = (
        section(recipe.get(key)) for key in ("train", "adapter", "vocab", "data")
    )
    yield "base model", _asked(recipe, "base")
    yield "parameters", count(None if model is None else number(model.parameters))
    yield "of them trained", count(None if model is None else number(model.trained_parameters))
    yield "LoRA rank, alpha", plain(f"{_asked(adapter, 'rank').text}, {_asked(adapter, 'alpha').text}")
    yield "adapters in", plain("–" if run.valid_recipe is None else run.valid_recipe.adapter.layers_text)
    yield "trained embeddings", _asked(vocab, "train_embeddings")
    yield "new embeddings initialised by", _asked(vocab, "initialise")
    yield "sequences per step", _asked(train, "global_batch_size")
    yield "sequence length", _asked(packing, "seq_len")
    yield "learning rate", _asked(train, "learning_rate")
    yield "schedule", _asked(train, "schedule")
    yield "precision", plain(f"{_asked(train, 'precision').text}, base {_asked(train, 'quantize').text}")
    yield "seed", _asked(recipe, "seed")


def _asked(options: dict[str, Any], key: str) -> Cell:
    return plain(scalar_text(options.get(key, "–")))


def _epochs(value: object) -> str:
    named = section(value)
    if not named:
        return f"{scalar_text(value)} epochs"
    return ", ".join(f"{scalar_text(often)} epochs of {name}" for name, often in named.items())


def _stages(run: RunFiles) -> Iterator[tuple[str, Cell]]:
    for stage in mappings(run.recipe.get("stages")):
        counted = ((number(stage.get(unit)), unit) for unit in ("tokens", "steps"))
        lengths = [f"{amount:,.0f} {unit}" for amount, unit in counted if amount is not None]
        length = lengths[0] if lengths else _epochs(stage.get("epochs", "?"))
        mixture = ", ".join(f"{name} {scalar_text(r)}" for name, r in section(stage.get("sources")).items())
        yield scalar_text(stage.get("name", "?")), plain(f"{length}: {mixture}")
