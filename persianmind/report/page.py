"""The HTML page of a run: one file that needs nothing else, made from the files of the run folder alone."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persianmind import __version__
from persianmind.common.atomic import write_text
from persianmind.common.template import load_template
from persianmind.report import cost, inputs, samples, scores, suites
from persianmind.report.font import font_face
from persianmind.report.languages import languages, target
from persianmind.report.read import RunFiles, read_run
from persianmind.report.training import training
from persianmind.report.values import mappings, scalar_text
from persianmind.report.verdict import verdict
from persianmind.report.view import Facts, plain
from persianmind.run.folder import RunFolder

# No script, no request of any kind: what the page shows may come from a model or from the web.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; font-src data:"
HOST_FACTS = (
    ("os", "system"), ("cpu_model", "CPU"), ("cpu_count", "CPU threads"), ("gpu_model", "GPUs"),
)  # fmt: skip


def write_report(run: Path) -> Path:
    """Writes run/report.html, whole or not at all, and returns its path.

    Missing or damaged files are named on the page; only a folder that is no run folder is refused.

    Raises:
        RunFolderError: `run` is no run folder.
    """
    folder = RunFolder(run)
    folder.require()
    write_text(folder.report, render(read_run(folder)))
    return folder.report


def render(run: RunFiles) -> str:
    """The page as text."""
    return load_template(Path(__file__).parent, "templates/page.html.j2").render(
        policy=POLICY,
        font_face=font_face(languages(run)),
        name=run_name(run),
        finished=run.results.finished,
        base=scalar_text(run.recipe.get("base", "base unknown")),
        stages=", ".join(_stage_names(run)) or "no stages known",
        target=target(run),
        verdict=verdict(run),
        gaps=run.gaps,
        evaluation=scores.evaluation(run),
        suites=suites.suites(run),
        samples=samples.samples(run),
        energy=cost.energy(run),
        training=training(run),
        vocabulary=inputs.vocabulary(run),
        data=inputs.data(run),
        checkpoints=inputs.checkpoints(run),
        recipe=inputs.recipe(run),
        environment=_environment(run),
        commands=_commands(run.folder),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def run_name(run: RunFiles) -> str:
    """By its recipe, else by its folder."""
    return scalar_text(run.recipe.get("name", run.folder.path.resolve().name))


def _stage_names(run: RunFiles) -> list[str]:
    return [scalar_text(stage.get("name", "?")) for stage in mappings(run.recipe.get("stages"))]


def _environment(run: RunFiles) -> Facts:
    """Package versions, and the first node's machine as the last meter saw it."""
    versions: dict[str, Any] = dict(run.results.versions)
    host: dict[str, Any] = next((a.host for a in reversed(run.ledger.attempts) if a.host), {})
    for key, label in HOST_FACTS:
        if host.get(key):
            versions.setdefault(label, host[key])
    return [(name, plain(value)) for name, value in versions.items()]


def _commands(run: RunFolder) -> list[tuple[str, str]]:
    """(what it does, the command)."""
    folder, recipe = shlex.quote(str(run)), shlex.quote(str(run.recipe))
    commands = [
        ("Resume it, or find that all is done", f"persianmind train {recipe} --output {folder}"),
        ("Talk to it", f"persianmind chat {folder}"),
        ("Check every byte", f"persianmind verify {folder}"),
        ("The energy account, for people or for scripts", f"persianmind energy report {folder} --json"),
        ("Make this page again", f"persianmind report {folder}"),
    ]
    if run.export.is_dir():
        load = f"AutoModelForCausalLM.from_pretrained({str(run.export)!r})"
        commands.append(("The merged model, for transformers alone", load))
    return commands
