"""A page as a tree, by the standard library's parser: what a browser would see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "link", "img", "hr", "input"}


@dataclass
class Node:
    """An element, or (with an empty tag) the document."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """This element and all below it, in order."""
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag: str, kind: str = "") -> list[Node]:
        """Elements below by tag and one of their classes."""
        return [
            node for node in self.walk()
            if node.tag == tag and (not kind or kind in node.attributes.get("class", "").split())
        ]  # fmt: skip

    @property
    def raw(self) -> str:
        """All text below, white space as it is."""
        return "".join(child if isinstance(child, str) else child.raw for child in self.children)

    @property
    def text(self) -> str:
        """All text below as it reads, elements apart."""
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(parts).split())

    @property
    def skeleton(self) -> list[tuple[str, tuple[str, ...]]]:
        """Every element with the names of its attributes, in order: what planted text must not change."""
        return [(node.tag, tuple(node.attributes)) for node in self.walk()]

    def table(self) -> dict[str, list[str]]:
        """The first table below: the cells of each line by its first cell."""
        first = self.all("table")[0]
        lines = [[cell.text for cell in row.walk() if cell.tag in ("th", "td")] for row in first.all("tr")]
        return {header: rest for header, *rest in lines[1:]}

    def facts(self) -> dict[str, str]:
        """Every list of names and values below."""
        pairs = (pair for listed in self.all("dl") for pair in listed.all("div"))
        return {pair.all("dt")[0].text: pair.all("dd")[0].text for pair in pairs}

    def panel(self, title: str) -> Node:
        """The framed part with this heading."""
        return next(p for p in self.all("div", "panel") if p.headings[0] == title)

    @property
    def headings(self) -> list[str]:
        """Of all levels below the sections' own."""
        return [node.text for node in self.walk() if node.tag in ("h3", "h4")]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = self._add(tag, attrs)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._add(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def _add(self, tag: str, attrs: list[tuple[str, str | None]]) -> Node:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        return node


def parse(page: Path) -> Node:
    """The page; every element must be closed in order."""
    parser = _Parser()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    assert len(parser.open) == 1, [node.tag for node in parser.open]
    return parser.open[0]


def sections(page: Node) -> dict[str, Node]:
    """The sections by id, in order."""
    return {node.attributes["id"]: node for node in page.all("section")}


def gaps(page: Node) -> list[str]:
    """The sentences about what is not in the report."""
    return [item.text for box in page.all("div", "gaps") for item in box.all("li")]
