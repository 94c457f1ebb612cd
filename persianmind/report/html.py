"""Small pure pieces of HTML. Every value goes through `text`; nothing else may put a value on the page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

GAP = '<span class="gap">–</span>'

# What HTML forbids, and the bidirectional controls that could make one cell reorder its neighbours.
_UNWANTED = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)])
_UNWANTED |= dict.fromkeys([0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069])


def text(value: object) -> str:
    """Any value as escaped text, safe as content and inside double-quoted attributes."""
    cleaned = str(value).translate(_UNWANTED).encode("utf-8", "replace").decode("utf-8")
    return html.escape(cleaned, quote=True)


def persian(value: object, kind: str = "") -> str:
    """Persian text, right to left, isolated from what stands around it."""
    return f'<bdi lang="fa" dir="rtl" class="fa {kind}">{text(value)}</bdi>'


def figure(value: float | None, digits: int = 3, unit: str = "") -> str:
    """A number with its unit; a dash where there is none."""
    if value is None:
        return GAP
    shown = f"{value:,.{digits}f}".replace("-", "−")
    return f'<span class="n">{shown}</span>' + (f'<span class="unit">{text(unit)}</span>' if unit else "")


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return figure(value, 0)


def table(header: Sequence[str], body: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of ready cells; the first column is a row header. Wide ones scroll inside their own box."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    lines = []
    for first, *rest in body:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="{text(kind)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and ready values."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{items}</dl>'


def block(identity: str, title: str, lead: str, *content: str) -> str:
    """A section of the page with a heading and one sentence under it."""
    intro = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{text(identity)}"><h2>{text(title)}</h2>{intro}{"".join(content)}</section>'


def panel(title: str, content: str, note: str = "", wide: bool = False) -> str:
    """A framed part of a section."""
    foot = f'<p class="note">{note}</p>' if note else ""
    kind = "panel wide" if wide else "panel"
    return f'<div class="{kind}"><h3>{text(title)}</h3>{content}{foot}</div>'


def bars(items: Sequence[tuple[str, float, float, str]]) -> str:
    """Horizontal bars: (name, value, the solid part of it, label). The rest of a bar is hatched."""
    largest = max((value for _, value, _, _ in items), default=0.0)
    if largest <= 0:
        return ""
    lines = []
    for name, value, solid, label in items:
        width, inner = 100 * value / largest, 100 * solid / value if value else 0.0
        fill = f'<span class="fill" style="width:{width:.2f}%">{_solid(inner)}</span>'
        lines.append(
            f'<div class="bar"><span class="bar-name">{text(name)}</span><span class="track">{fill}</span>'
            f'<span class="bar-value">{text(label)}</span></div>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'


def _solid(percent: float) -> str:
    return f'<span class="solid" style="width:{percent:.2f}%"></span>'
