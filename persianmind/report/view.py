"""The pieces that sections of the page are made of: plain data, no markup. The templates draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LARGEST_IN_DIGITS = 1e15  # beyond, a number is written with an exponent
PROSE_CHARACTERS = 34  # a value of more is a sentence, and is set as one


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a table or a list of facts.

    text: None is a gap, drawn as a dash. number: set in figures of equal width. origin: a small second line.
    change: a difference drawn behind the value, coloured by `tone` (flat, down, up).
    """

    text: str | None
    unit: str = ""
    number: bool = False
    origin: str = ""
    change: str = ""
    tone: str = ""

    @property
    def is_prose(self) -> bool:
        """Whether the value or what stands below it is too long for a column of figures."""
        return max(len(self.text or ""), len(self.origin)) > PROSE_CHARACTERS


Facts = list[tuple[str, Cell]]
GAP = Cell(None)


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of every line is its header. `numeric`: all other columns are figures."""

    header: Sequence[str]
    body: Sequence[Sequence[Cell]]
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar. width_percent: of the largest; solid_percent: the part of it that is not hatched."""

    name: str
    label: str
    width_percent: float
    solid_percent: float


def plain(value: object) -> Cell:
    """Any value as text."""
    return Cell(str(value))


def figure(value: float | None, digits: int = 3, unit: str = "") -> Cell:
    """A number with its unit; a gap where there is none."""
    if value is None:
        return GAP
    shown = f"{value:,.{digits}f}" if abs(value) < LARGEST_IN_DIGITS else f"{value:.3g}"
    return Cell(shown.replace("-", "−"), unit, number=True)


def count(value: float | None) -> Cell:
    """A whole number with thousands separated."""
    return figure(value, 0)


def bars(items: Sequence[tuple[str, float, float, str]]) -> list[Bar]:
    """Bars of (name, value, the solid part of it, label); [] where every value is 0."""
    largest = max((value for _, value, _, _ in items), default=0.0)
    if not largest > 0:
        return []
    return [
        Bar(name, label, 100 * value / largest, 100 * solid / value if value else 0.0)
        for name, value, solid, label in items
    ]
