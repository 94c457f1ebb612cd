"""A budget for a run in kWh or kg CO2: what is left, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from persianmind.common.errors import BudgetExceededError, EnergyError
from persianmind.energy.co2.intensity import resolve_intensity
from persianmind.energy.ledger import read_ledger
from persianmind.energy.meter.hardware import JOULES_PER_KWH
from persianmind.recipe import Energy
from persianmind.run.folder import RunFolder


def limit_kwh(options: Energy, folder: Path | None = None) -> float | None:
    """The tighter of both budgets, as kWh of the counted machines; None without a budget.

    A CO2 budget is turned into energy by kg x 1000 / (PUE x intensity); with a time-of-day curve by its mean.

    Raises:
        EnergyError: a CO2 budget is set and no intensity is known.
    """
    limits = []
    if options.budget_kwh is not None:
        limits.append(options.budget_kwh)
    if options.budget_kg_co2 is not None:
        intensity = resolve_intensity(options, folder)
        if intensity is None or intensity.g_per_kwh <= 0:
            raise EnergyError(
                "energy.budget_kg_co2 needs the intensity of the grid: set energy.country_iso or "
                "energy.intensity_g_per_kwh, or use energy.budget_kwh instead"
            )
        grams_per_kwh = options.pue * intensity.g_per_kwh
        limits.append(options.budget_kg_co2 * 1000 / grams_per_kwh)
    return min(limits, default=None)


def spent_joules(folder: RunFolder) -> float:
    """Joules of all nodes and attempts that the ledger holds so far."""
    return sum(sample.joules for sample in read_ledger(folder).samples)


@dataclass(frozen=True)
class Budget:
    """A run's limit and what earlier attempts took from it.

    Made once at the start, before the meter writes: `Budget.of(options, folder)`. `now_j` of its methods is
    what this attempt has used on all nodes together.
    """

    limit_kwh: float | None
    before_j: float = 0.0

    @classmethod
    def of(cls, options: Energy, folder: RunFolder) -> Budget:
        """The budget of a run folder.

        Raises:
            EnergyError: a CO2 budget is set and no intensity is known.
        """
        limit = limit_kwh(options, folder.path)
        return cls(limit, spent_joules(folder) if limit is not None else 0.0)

    def used_kwh(self, now_j: float) -> float:
        """kWh of all attempts together."""
        return (self.before_j + now_j) / JOULES_PER_KWH

    def remaining_kwh(self, now_j: float) -> float | None:
        """What is left, 0.0 at the least; None without a budget."""
        return None if self.limit_kwh is None else max(0.0, self.limit_kwh - self.used_kwh(now_j))

    def exceeded(self, now_j: float) -> bool:
        """Whether the run should save and stop now."""
        return self.limit_kwh is not None and self.used_kwh(now_j) >= self.limit_kwh

    def progress(self, now_j: float) -> str:
        """For the progress line, such as "0.41 of 2.00 kWh"; "" without a budget."""
        return "" if self.limit_kwh is None else f"{self.used_kwh(now_j):.2f} of {self.limit_kwh:.2f} kWh"

    def reached(self, now_j: float, step: int) -> BudgetExceededError:
        """The error to raise once the checkpoint is saved."""
        return BudgetExceededError(
            f"the energy budget of {self.limit_kwh or 0:.3f} kWh is used up ({self.used_kwh(now_j):.3f} kWh) "
            f"at step {step}; a checkpoint was saved: raise energy.budget_kwh or energy.budget_kg_co2 and "
            "start the same command to go on, or `persianmind export` the run as it is"
        )

    def shortfall(self, estimated_kwh: float) -> str | None:
        """Before step 1: a warning if the estimate for the rest of the run does not fit, else None."""
        remaining = self.remaining_kwh(0.0)
        if remaining is None or estimated_kwh <= remaining:
            return None
        percent = 100 * remaining / estimated_kwh
        return (
            f"the budget leaves {remaining:.3f} kWh and the estimate is {estimated_kwh:.3f} kWh: the run "
            f"will save and stop at about {percent:.0f}% of the way"
        )
