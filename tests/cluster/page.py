"""docs/cluster.md as a machine reads it: its commands, and its table of ports."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.launch import ROOT

PAGE = ROOT / "docs" / "cluster.md"
PROGRAMS = ("ray", "python", "deepspeed", "sudo", "make", "ssh", "pytest", "[A-Z_]+=1 pytest")
# With a flag or a path: `ray up` alone is a name.
MENTION = re.compile(rf"(?:{'|'.join(PROGRAMS)}) (?=.*[-/]).+")
SPAN = re.compile(r"`([^`]+)`")


def page_commands() -> list[str]:
    """Every command of the page: those of its code blocks whole, and those that its text mentions."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    prose = re.sub(r"^ {4}.*\n", "", text, flags=re.MULTILINE)
    mentions = (" ".join(span.split()) for span in SPAN.findall(prose))
    return [*(one for block in blocks for one in _split(block)), *filter(MENTION.fullmatch, mentions)]


def _split(block: str) -> list[str]:
    joined = re.sub(r"\\\n\s+", "", block)
    loops = re.sub(r"for .*?\bdone\b", lambda one: one[0].replace("\n", ";"), joined, flags=re.DOTALL)
    return [line.strip().replace("do;", "do ") for line in loops.splitlines() if line.strip()]


def printed(beginning: str) -> str:
    """The one command of the page that begins so."""
    (found,) = {command for command in page_commands() if command.startswith(beginning)}
    return found


@dataclass(frozen=True, slots=True)
class PortRow:
    """A line of the table. last: of a range; both None for any port. address: "loopback", "node" or "all"."""

    first: int | None
    last: int | None
    who: str
    address: str

    def admits(self, port: int, who: str, address: str) -> bool:
        """Whether this line is of that listening socket."""
        in_range = self.first is None or self.first <= port <= (self.last or self.first)
        return in_range and self.who == who and self.address == address


def port_rows() -> list[PortRow]:
    """The table under "Ports": port | process | listens on | ..."""
    section = PAGE.read_text(encoding="utf-8").split("## Ports")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
    return [
        _row(cells[0], process, address)
        for cells in rows
        if len(cells) >= 4 and not set(cells[0]) <= {"-"} and cells[0] != "port"
        for process in cells[1].split(", ")
        for address in cells[2].split(" and ")
    ]


def _row(port: str, process: str, address: str) -> PortRow:
    numbers = [int(number) for number in re.findall(r"\d+", port)]
    ends = (numbers[0], numbers[-1]) if numbers else (None, None)
    return PortRow(*ends, process.strip("`"), address)
