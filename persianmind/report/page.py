"""The HTML page of a run: one file that needs nothing else, made from the files of the run folder alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persianmind import __version__
from persianmind.common.atomic import write_text
from persianmind.energy.account import require_run
from persianmind.report import cost, quality, training
from persianmind.report.html import block, count, facts, panel, text
from persianmind.report.read import RunFiles, number, read_run, rows, section
from persianmind.report.style import CSS

# No script, no request of any kind: what the page shows may come from a model or from the web.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_report(run: Path) -> Path:
    """Writes run/report.html, whole or not at all, and returns its path.

    Missing or damaged files are named on the page; only a folder that is no run folder is refused.

    Raises:
        RunFolderError: `run` is no run folder.
    """
    require_run(run)
    page = run / "report.html"
    write_text(page, render(read_run(run)))
    return page


def render(run: RunFiles) -> str:
    """The page as text."""
    sections = [
        quality.evaluation(run),
        quality.samples(run),
        cost.energy(run),
        training.curves(run),
        training.vocabulary(run),
        training.data(run),
        training.checkpoints(run),
        _recipe(run),
        _environment(run),
        _commands(run),
    ]
    name = str(run.recipe.get("name", run.folder.resolve().name))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{text(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(name)} · PersianMind run</title><style>{CSS}</style></head><body><main>"
        f"{_header(run, name)}{quality.hero(run)}{_gaps(run)}{''.join(sections)}{_footer()}"
        "</main></body></html>\n"
    )


_LINKS = (
    ("evaluation", "Evaluation"), ("samples", "Samples"), ("energy", "Energy"), ("training", "Training"),
    ("vocabulary", "Vocabulary"), ("data", "Data"), ("checkpoints", "Checkpoints"), ("recipe", "Recipe"),
    ("commands", "Commands"),
)  # fmt: skip


def _header(run: RunFiles, name: str) -> str:
    finished = run.results.get("finished") is True
    state = (
        '<span class="state">finished</span>' if finished else '<span class="state open">not finished</span>'
    )
    stages = [str(stage.get("name", "?")) for stage in rows(run.recipe.get("stages"))]
    way = f"{text(run.recipe.get('base', 'base unknown'))} → {text(', '.join(stages) or 'no stages known')}"
    links = "".join(f'<a href="#{key}">{label}</a>' for key, label in _LINKS)
    return (
        f'<header><p class="kicker">PersianMind run</p><h1>{text(name)}</h1>'
        f'<p class="sub">{state}{way}</p><nav aria-label="Sections">{links}</nav></header>'
    )


def _gaps(run: RunFiles) -> str:
    if not run.gaps:
        return ""
    items = "".join(f"<li>{text(gap)}</li>" for gap in run.gaps)
    return f'<div class="gaps"><h3>Not in this report</h3><ul>{items}</ul></div>'


def _recipe(run: RunFiles) -> str:
    if not run.recipe:
        return ""
    return block("recipe", "The recipe", "", panel("In short", facts(_recipe_facts(run))), _stages(run))


def _recipe_facts(run: RunFiles) -> Iterator[tuple[str, str]]:
    recipe, model = run.recipe, section(run.results.get("model"))
    train, adapter, vocab = (section(recipe.get(key)) for key in ("train", "adapter", "vocab"))
    yield "base model", text(recipe.get("base", "–"))
    yield "parameters", count(number(model.get("parameters")))
    yield "of them trained", count(number(model.get("trained_parameters")))
    yield "LoRA rank, alpha", text(f"{adapter.get('rank', '–')}, {adapter.get('alpha', '–')}")
    yield "trained rows of the vocabulary", text(vocab.get("train_embeddings", "–"))
    yield "rows initialised by", text(vocab.get("initialise", "–"))
    yield "rows a step", text(train.get("global_batch_size", "–"))
    yield "row length", text(section(recipe.get("data")).get("seq_len", "–"))
    yield "learning rate", text(train.get("learning_rate", "–"))
    yield "schedule", text(train.get("schedule", "–"))
    yield "precision", text(f"{train.get('precision', '–')}, base {train.get('quantize', '–')}")
    yield "seed", text(recipe.get("seed", "–"))


def _stages(run: RunFiles) -> str:
    items = []
    for stage in rows(run.recipe.get("stages")):
        tokens = number(stage.get("tokens"))
        length = f"{tokens:,.0f} tokens" if tokens is not None else f"{stage.get('epochs', '?')} epochs"
        mixture = ", ".join(f"{name} {share}" for name, share in section(stage.get("sources")).items())
        items.append((str(stage.get("name", "?")), text(f"{length}: {mixture}")))
    return panel("Stages", facts(items)) if items else ""


def _environment(run: RunFiles) -> str:
    versions: dict[str, Any] = dict(section(run.results.get("versions")))
    host = next((a.host for a in reversed(run.ledger.attempts) if a.host), {})
    for key, label in (
        ("os", "system"),
        ("cpu_model", "CPU"),
        ("cpu_count", "CPU threads"),
        ("gpu_model", "GPUs"),
    ):
        if host.get(key):
            versions.setdefault(label, host[key])
    if not versions:
        return ""
    return block(
        "environment", "Where it ran", "", panel("Versions", facts((k, text(v)) for k, v in versions.items()))
    )


def _commands(run: RunFiles) -> str:
    folder = shlex.quote(str(run.folder))
    recipe = shlex.quote(str(run.folder / "recipe.yaml"))
    launch = (
        f"deepspeed launcher/train.py --deepspeed ds_configs/zero2.json --recipe {recipe} --output {folder}"
    )
    export = run.folder / "export"
    lines = [
        ("Resume it, or find that all is done", launch),
        ("Check every byte of the checkpoints", f"persianmind checkpoint verify {folder}"),
        ("The energy account, for people or for scripts", f"persianmind energy report {folder} --json"),
        ("Make this page again", f"persianmind report {folder}"),
    ]
    if export.is_dir():
        lines.append(("The merged model, for transformers alone",
                      f"AutoModelForCausalLM.from_pretrained({str(export)!r})"))  # fmt: skip
    shown = "".join(f"<h3>{text(title)}</h3><pre>{text(command)}</pre>" for title, command in lines)
    return block("commands", "Commands", "", shown)


def _footer() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"<footer>Written {now} by PersianMind {text(__version__)} from the files of the run folder.</footer>"
    )
