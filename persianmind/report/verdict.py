"""What the reader wants first: one sentence on what the run did, three figures, and what it was run on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from persianmind.energy.machines import hardware_names
from persianmind.energy.show import co2_text, energy_text, kwh_text
from persianmind.report.gains import gains
from persianmind.report.languages import PageLanguage, languages
from persianmind.report.read import RunFiles
from persianmind.report.values import number
from persianmind.report.view import Cell, Facts, count, plain
from persianmind.run.scores import scores_by_stage


@dataclass(frozen=True, slots=True)
class Card:
    """One of the three figures at the top. big: None is a gap."""

    kind: str
    title: str
    big: str | None
    verdict: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class VerdictView:
    """sentence: the whole page in one. facts: when, where, of what. versions: package and version."""

    sentence: str
    cards: list[Card]
    facts: Facts


def verdict(run: RunFiles) -> VerdictView:
    """The top of the page."""
    return VerdictView(
        _sentence(run),
        [*(_language_card(run, one) for one in languages(run)[:2]), _cost_card(run)],
        list(_facts(run)),
    )


def time_spent_text(seconds: float) -> str:
    """Seconds as people say them; a dash for what is no time."""
    if number(seconds) is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = int(seconds // 3600), seconds % 3600 / 60
    if not hours:
        return f"{minutes:.1f} min"
    days, rest = divmod(hours, 24)
    return f"{days} days {rest} h" if days > 1 else f"{hours:,} h {minutes:.0f} min"


def _sentence(run: RunFiles) -> str:
    found = gains(run)
    learned = " and ".join(gain.sentence for gain in found if gain.sentence)
    tokens = number(sum(step.tokens for step in run.steps))
    trained = f" on {tokens:,.0f} tokens" if tokens else ""
    cost = "" if run.account is None or not run.account["kwh"] else f", for {energy_text(run.account)}"
    if run.results.finished:
        return f"After {len(run.steps):,} steps{trained}, {learned or 'nothing was scored'}{cost}."
    state = "; so far " + learned if learned else "; no stage is scored yet"
    return f"Not finished: {_progress(run)}{_last_seen(run)}{state}{cost}."


def _progress(run: RunFiles) -> str:
    if not run.steps:
        return "no step is done"
    planned = run.results.total_steps
    of = "" if planned is None else f" of {planned:,}"
    return f"step {run.steps[-1].step:,}{of}"


def _last_seen(run: RunFiles) -> str:
    last = _times(run)[1]
    return "" if last is None else f", last seen {_date(last)}"


def _language_card(run: RunFiles, language: PageLanguage) -> Card:
    kind, title = language.role, f"{language.name}, held-out text"
    gain = next((one for one in gains(run) if one.language.code == language.code), None)
    if gain is not None and gain.percent is not None:
        return Card(kind, title, gain.big, gain.verdict, gain.path)
    base = scores_by_stage(run.results).get("base", {}).get(language.code)
    if base is None:
        return Card(kind, title, None, "not measured yet")
    return Card(
        kind,
        title,
        None,
        "not scored after training yet",
        f"the base: {base.bits_per_byte:.3f} bits per byte",
    )


def _cost_card(run: RunFiles) -> Card:
    account = run.account
    if not run.ledger.attempts or account is None:
        return Card("spent", "Spent", None, "no energy was recorded")
    cost = account["cost"]
    money = f", {cost['amount']:,.2f} {cost['currency']}" if cost else ""
    big = kwh_text(account["kwh"]) if account["kwh"] else None
    title = "Spent, as far as it is known" if account["unknown"] else "Spent"
    return Card("spent", title, big, energy_text(account), f"CO₂eq: {co2_text(account)}{money}")


def _facts(run: RunFiles) -> Iterator[tuple[str, Cell]]:
    first, last = _times(run)
    yield "state", plain("finished" if run.results.finished else f"not finished, {_progress(run)}")
    if first is not None and last is not None:
        yield "started", plain(_date(first))
        yield "ended" if run.results.finished else "last seen", plain(_date(last))
        yield "wall time", Cell(time_spent_text((last - first).total_seconds()), origin="pauses included")
    yield "hardware", plain(hardware_names(run.ledger) or "unknown")
    if (size := run.results.model) is not None:
        yield "parameters", count(number(size.parameters))
        yield "of them trained", count(number(size.trained_parameters))
    yield "commit", plain(run.results.commit or "not from a checkout")
    yield "PersianMind", plain(run.results.versions.get("persianmind", "unknown"))
    yield "torch", plain(run.results.versions.get("torch", "unknown"))


def _times(run: RunFiles) -> tuple[datetime | None, datetime | None]:
    """When the run began and when anything of it was written last."""
    texts = [attempt.started for attempt in run.ledger.attempts]
    texts += [attempt.samples[-1].time for attempt in run.ledger.attempts if attempt.samples]
    texts += [step.time for step in (run.steps[:1] + run.steps[-1:])]
    times = sorted(time for text in texts if (time := _parsed(text)) is not None)
    return (times[0], times[-1]) if times else (None, None)


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _date(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
