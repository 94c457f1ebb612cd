"""How the training went: curves over the steps, the vocabulary, the data, the checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from persianmind.energy.records import is_training
from persianmind.report.charts import Chart, Point, Series, draw, draw_wide, smooth, thin
from persianmind.report.html import block, count, facts, figure, panel, persian, table, text
from persianmind.report.read import RunFiles, number, rows, section

SHOWN_PIECES = 48


def curves(run: RunFiles) -> str:
    """Loss, learning rate, gradient norm and speed over the optimizer steps."""
    if not run.steps:
        return ""
    marks = _stage_marks(run.steps)
    loss = _points(run.steps, "loss")
    series = [
        Series("each step", thin(loss), "t-fa", quiet=True),
        Series("smoothed", thin(smooth(loss)), "t-fa"),
    ]
    again = f"{run.steps_done_again} steps were done again after a crash; each is drawn once." if (
        run.steps_done_again) else ""  # fmt: skip
    panels = [panel("Loss", draw_wide(Chart("Loss over steps", series, marks=marks)), again, wide=True)]
    for key, title, tone, zero in _SMALL:
        points = _points(run.steps, key)
        if points:
            chart = Chart(
                f"{title} over steps", [Series(title, thin(points), tone)], marks=marks, from_zero=zero
            )
            panels.append(panel(title, draw(chart)))
    panels.append(panel("In numbers", facts(_totals(run))))
    return block("training", "How the training went", "", f'<div class="grid2">{"".join(panels)}</div>')


_SMALL = (
    ("tokens_per_s", "Tokens per second", "t-third", True),
    ("grad_norm", "Gradient norm", "t-en", True),
    ("learning_rate", "Learning rate", "t-soft", True),
)


def _points(steps: list[dict[str, Any]], key: str) -> list[Point]:
    return [(float(i), v) for i, step in enumerate(steps, 1) if (v := number(step.get(key))) is not None]


def _stage_marks(steps: list[dict[str, Any]]) -> list[tuple[float, str]]:
    marks: list[tuple[float, str]] = []
    before: object = None
    for index, step in enumerate(steps, 1):
        if step.get("stage") != before:
            before = step.get("stage")
            marks.append((float(index), str(before)[:16]))
    return marks


def _totals(run: RunFiles) -> Iterator[tuple[str, str]]:
    steps = run.steps

    def total(key: str) -> float | None:
        values = [v for step in steps if (v := number(step.get(key))) is not None]
        return sum(values) if values else None

    seconds, tokens, useful = total("seconds"), total("tokens"), total("useful_tokens")
    yield "optimizer steps", count(len(steps))
    yield "tokens", count(tokens)
    if useful is not None and tokens:
        yield "of them useful", figure(100 * useful / tokens, 1, "%")
    if seconds:
        yield "training time", duration(seconds)
        yield "tokens per second, mean", count(None if tokens is None else tokens / seconds)
    # From the ledger: the joules in metrics.jsonl are the running total of one attempt on one node.
    joules = sum(s.joules for s in run.ledger.samples if is_training(s.stage))
    if joules and tokens:
        yield "joules per thousand tokens", figure(1000 * joules / tokens, 1)
    last = number(steps[-1].get("loss"))
    yield "last loss", figure(last)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return figure(seconds, 1, "s")
    hours, minutes = int(seconds // 3600), seconds % 3600 / 60
    return f"{hours:,} h {minutes:.0f} min" if hours else figure(minutes, 1, "min")


def vocabulary(run: RunFiles) -> str:
    """Sizes, fertility before and after, and some of the new pieces."""
    vocab = run.vocab
    if not vocab:
        return ""
    model = section(run.results.get("model"))
    pairs = [
        ("tokenizer family", text(vocab.get("family", "–"))),
        ("base vocabulary", count(number(vocab.get("base_vocab", model.get("base_vocab"))))),
        ("new pieces", count(number(vocab.get("added", model.get("added_vocab"))))),
    ]
    parts = [panel("Sizes", facts(pairs))]
    fertility = list(_fertility(section(vocab.get("fertility"))))
    if fertility:
        header = ["language", "before", "after", "change"]
        parts.append(panel("Tokens per word", table(header, fertility, "num"), "Fewer is cheaper."))
    pieces = rows(vocab.get("pieces"))
    if pieces:
        parts.append(panel(f"Some of the {len(pieces):,} new pieces", _chips(pieces), _CHIPS_NOTE, wide=True))
    return block("vocabulary", "The vocabulary", "", f'<div class="grid2">{"".join(parts)}</div>')


_CHIPS_NOTE = "The small number is how many base tokens the piece took before."


def _fertility(table_: dict[str, Any]) -> Iterator[list[str]]:
    """Accepts {fa: {before, after}} and {before: {fa}, after: {fa}}."""
    if {"before", "after"} <= table_.keys() and isinstance(table_["before"], dict):
        before, after = table_["before"], section(table_["after"])
        table_ = {name: {"before": before[name], "after": after.get(name)} for name in before}
    for name, row in table_.items():
        before_n, after_n = number(section(row).get("before")), number(section(row).get("after"))
        if before_n is None and after_n is None:
            continue
        change = None if not before_n or after_n is None else 100 * (after_n - before_n) / before_n
        label = {"fa": "Persian", "en": "English"}.get(name, name)
        yield [text(label), figure(before_n, 2), figure(after_n, 2), figure(change, 0, "%")]


def _chips(pieces: list[dict[str, Any]]) -> str:
    """Pieces from the whole range, most frequent first, so that also rare ones are seen."""
    step = max(1, len(pieces) // SHOWN_PIECES)
    items = []
    for piece in pieces[::step][:SHOWN_PIECES]:
        shown = str(piece.get("text", "")).replace("▁", " ").strip()
        base = piece.get("base_ids")
        small = f"<small>{len(base)}</small>" if isinstance(base, list) else ""
        if shown:
            items.append(f"<li>{persian(shown)}{small}</li>")
    return f'<ul class="chips" dir="rtl">{"".join(items)}</ul>'


def data(run: RunFiles) -> str:
    """Each source: documents, rows, fill, and what was set aside, by reason."""
    if not run.data:
        return ""
    header = ["source", "documents", "held out", "tokens", "rows", "fill", "cut", "tokens lost", "set aside"]
    body, reasons = [], []
    for name, item in run.data.items():
        aside = _set_aside(item)
        fill = number(item.get("fill"))
        body.append([
            f"{text(name)}{_origin(item)}", count(number(item.get("documents"))),
            count(number(item.get("documents_held_out"))), count(number(item.get("tokens"))),
            count(number(item.get("rows"))), figure(None if fill is None else 100 * fill, 2, "%"),
            count(number(item.get("documents_cut"))), count(number(item.get("tokens_lost"))),
            count(sum(aside.values())),
        ])  # fmt: skip
        reasons += [f"{name}: {amount:,} × {reason.replace('_', ' ')}" for reason, amount in aside.items()]
    listed = "".join(f"<li>{text(reason)}</li>" for reason in reasons)
    why = panel("Set aside, by reason", f'<ul class="plain">{listed}</ul>', _QUARANTINE) if reasons else ""
    lead = "Whole documents packed into fixed rows; only a document longer than a row is cut."
    return block("data", "The data", lead, table(header, body, "num"), why)


_QUARANTINE = "Rows set aside are kept in the quarantine file with their place and reason."


def _set_aside(manifest: dict[str, Any]) -> dict[str, int]:
    """Bad rows by reason and rows that a quality filter took, by filter."""
    aside: dict[str, int] = {}
    for reason, amount in section(manifest.get("rejected")).items():
        aside[str(reason)] = int(number(amount) or 0)
    for name, taken in section(manifest.get("taken")).items():
        aside[str(name)] = int(number(section(taken).get("count")) or 0)
    damaged = manifest.get("damaged_files")
    if isinstance(damaged, list) and damaged:
        aside["damaged file"] = len(damaged)
    return {reason: amount for reason, amount in aside.items() if amount}


def _origin(manifest: dict[str, Any]) -> str:
    known = [str(manifest[key]) for key in ("language", "kind", "licence") if manifest.get(key)]
    return f'<small class="origin">{text(", ".join(known))}</small>' if known else ""


def checkpoints(run: RunFiles) -> str:
    """What is stored."""
    if not run.checkpoints:
        return block("checkpoints", "Checkpoints", "None is stored in this run folder.")
    body = []
    for item in run.checkpoints:
        known = section(item.get("facts"))
        sizes = [number(section(entry).get("size_bytes")) for entry in section(item.get("files")).values()]
        stored = [size for size in sizes if size is not None]
        megabytes = figure(sum(stored) / 1e6, 1, "MB") if stored else figure(None)
        body.append([
            text(item["name"]), text(known.get("stage", item.get("stage", "–"))),
            count(number(item.get("step"))), count(number(item.get("world_size"))), megabytes,
            text(item.get("saved_at", "–")),
        ])  # fmt: skip
    header = ["checkpoint", "stage", "step", "ranks", "size", "saved"]
    return block("checkpoints", "Checkpoints", "", table(header, body, "num"))
