"""Watching the GPUs of a node beside their joules: what is reported, and what the ledger keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from persianmind.energy.meter.meanings import POWER_LIMIT, REMEDIES, xid_meaning
from persianmind.energy.meter.nvml import GpuLook, NvmlGpu, XidEvents
from persianmind.run.energy_records import GpuFacts, GpuInterval

# A reason is reported once it has held without a break for the first, its end after the second without it:
# a GPU at its power limit crosses it many times a minute.
BEGIN_S, END_S = 5.0, 60.0


@dataclass(frozen=True, slots=True)
class Happening:
    """One line for the log. serious: somebody should look at it; it is kept in the ledger too."""

    text: str
    serious: bool = False
    gpu: str | None = None
    xid: int | None = None


@dataclass
class _Spell:
    """One reason of one GPU: since when, when last, and whether it was reported."""

    since_s: float
    last_s: float
    reported: bool = False


@dataclass
class _Tally:
    """One GPU over the interval that is being added up."""

    samples: int = 0
    clocks_mhz: float = 0.0
    throttled: dict[str, int] = field(default_factory=dict)
    hottest_c: float | None = None
    last: GpuLook | None = None

    def add(self, look: GpuLook) -> None:
        self.samples += 1
        self.clocks_mhz += look.clock_mhz or 0.0
        self.last = look
        for reason in look.reasons:
            self.throttled[reason] = self.throttled.get(reason, 0) + 1
        if look.temperature_c is not None:
            self.hottest_c = max(self.hottest_c or 0.0, look.temperature_c)

    def interval(self, gpu: str) -> GpuInterval:
        known = self.last is not None and self.last.clock_mhz is not None
        return GpuInterval(
            gpu=gpu,
            samples=self.samples,
            throttled=dict(sorted(self.throttled.items())),
            clock_mhz=round(self.clocks_mhz / self.samples) if known else None,
            temperature_c=self.hottest_c,
            power_limit_w=None if self.last is None else self.last.power_limit_w,
        )


class GpuWatch:
    """Limits, clocks, temperature, throttling and Xid errors of some NVIDIA GPUs; `indices` as in NVML.

    What cannot be read is named by `begin`, and nothing of it is raised: joules are counted without.
    """

    def __init__(self, indices: Sequence[int]) -> None:
        self._gpus: list[NvmlGpu] = []
        self._refused = ""
        if indices:
            self._open(indices)
        self._xids = XidEvents(self._gpus) if self._gpus else None
        self._missing = {gpu.name: set(gpu.missing) for gpu in self._gpus}
        self._limits_w = {gpu.name: gpu.facts.power_limit_w for gpu in self._gpus}
        self._spells: dict[tuple[str, str], _Spell] = {}
        self._tallies: dict[str, _Tally] = {}

    def _open(self, indices: Sequence[int]) -> None:
        import pynvml

        try:
            pynvml.nvmlInit()
            self._gpus = [NvmlGpu(index) for index in indices]
        except pynvml.NVMLError as error:
            self._refused = f"limits, clocks and Xid errors of the GPUs cannot be read ({error})"

    @property
    def facts(self) -> list[GpuFacts]:
        """What holds for each GPU now."""
        return [gpu.facts for gpu in self._gpus]

    def begin(self) -> list[Happening]:
        """What is said once: the limits, and what cannot be read."""
        by_text: dict[str, list[str]] = {}
        for facts in self.facts:
            by_text.setdefault(_limits_text(facts), []).append(facts.gpu)
        found = [Happening(f"{_names(gpus)}: {text}") for text, gpus in by_text.items() if text]
        if lacking := self._lacking():
            found.append(Happening(f"{lacking}; the run goes on without", serious=True))
        return found

    def sample(self, now_s: float) -> list[Happening]:
        """Looks at every GPU once; `now_s` is monotonic."""
        looks = {gpu.name: gpu.look() for gpu in self._gpus}
        for name, look in looks.items():
            self._tallies.setdefault(name, _Tally()).add(look)
        return [
            *self._new_xids(),
            *self._newly_missing(),
            *self._changed_limits(looks),
            *self._throttling(looks, now_s),
        ]

    def take(self) -> list[GpuInterval]:
        """What was added up since the last call."""
        tallies, self._tallies = self._tallies, {}
        return [tally.interval(gpu) for gpu, tally in tallies.items()]

    def _lacking(self) -> str:
        by_text: dict[tuple[str, str], list[str]] = {}
        for gpu in self._gpus:
            for what, why in gpu.missing.items():
                by_text.setdefault((what, why), []).append(gpu.name)
        for name, why in (self._xids.missing if self._xids else {}).items():
            by_text.setdefault(("Xid errors", why), []).append(name)
        texts = [f"{what} of {_names(gpus)} cannot be read ({why})" for (what, why), gpus in by_text.items()]
        return "; ".join([*([self._refused] if self._refused else []), *texts])

    def _newly_missing(self) -> Iterable[Happening]:
        for gpu in self._gpus:
            if new := [what for what in gpu.missing if what not in self._missing[gpu.name]]:
                self._missing[gpu.name].update(new)
                text = f"{gpu.name}: {', '.join(new)} can no longer be read ({gpu.missing[new[0]]})"
                yield Happening(text, serious=True, gpu=gpu.name)

    def _new_xids(self) -> Iterable[Happening]:
        for gpu, xid in self._xids.take() if self._xids else ():
            yield Happening(f"{gpu}: Xid {xid}: {xid_meaning(xid)}", serious=True, gpu=gpu, xid=xid)

    def _changed_limits(self, looks: dict[str, GpuLook]) -> Iterable[Happening]:
        for name, look in looks.items():
            before, self._limits_w[name] = self._limits_w[name], look.power_limit_w or self._limits_w[name]
            if before is not None and before != self._limits_w[name]:
                yield Happening(
                    f"{name}: the power limit is now {self._limits_w[name]:g} W, was {before:g} W"
                )

    def _throttling(self, looks: dict[str, GpuLook], now_s: float) -> Iterable[Happening]:
        for name, look in looks.items():
            for reason in look.reasons:
                self._spells.setdefault((name, reason), _Spell(now_s, now_s)).last_s = now_s
        begun: dict[str, list[str]] = {}
        ended: dict[str, list[str]] = {}
        for (name, reason), spell in list(self._spells.items()):
            quiet_s = now_s - spell.last_s
            if not spell.reported and not quiet_s and now_s - spell.since_s >= BEGIN_S:
                spell.reported = True
                begun.setdefault(reason, []).append(name)
            elif quiet_s and (not spell.reported or quiet_s >= END_S):
                del self._spells[(name, reason)]
                if spell.reported:
                    ended.setdefault(reason, []).append(f"{name} after {spell.last_s - spell.since_s:.0f} s")
        for reason, gpus in begun.items():
            text = f"{_names(gpus)}: clocks are held down: {reason}{_numbers(reason, looks[gpus[0]])}"
            remedy = REMEDIES.get(reason)
            yield Happening(f"{text}; {remedy}" if remedy else text, serious=remedy is not None)
        for reason, gpus in ended.items():
            yield Happening(f"clocks are no longer held down ({reason}): {', '.join(gpus)}")


def _limits_text(facts: GpuFacts) -> str:
    if facts.power_limit_w is None:
        return ""
    default = "" if facts.default_limit_w is None else f" (default {facts.default_limit_w:g} W)"
    clock = "" if facts.max_clock_mhz is None else f", clocks up to {facts.max_clock_mhz:,} MHz"
    return f"power limit {facts.power_limit_w:g} W{default}{clock}"


def _numbers(reason: str, look: GpuLook) -> str:
    if reason == POWER_LIMIT:
        return "" if look.power_limit_w is None else f" of {look.power_limit_w:g} W"
    return "" if look.temperature_c is None else f" ({look.temperature_c:g} C)"


def _names(gpus: Sequence[str]) -> str:
    return ", ".join(gpus)
