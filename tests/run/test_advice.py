"""What the product advises about the recipe, it does not refuse afterwards: of every text in the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import persianmind
from persianmind.run.identity import FIXED
from persianmind.run.keys import KEYS

PACKAGE = Path(persianmind.__file__).parent
SECTIONS = "|".join({key.split(".")[0] for key in KEYS if "." in key} - {"sources", "stages", "profiles"})
KEY = re.compile(rf"\b(?:{SECTIONS})\.[a-z_]+(?:\.[a-z_]+)?")
ADVISES = re.compile(r"\b(give|set|raise|lower|use|try|add|name|take|would)\b")
ELSEWHERE = ("another --output", "another --gpu")
# Said before a vocabulary or a step depends on the key, and then the folder takes another one.
EARLY = {
    "recipe/adapter.py": "as the base is looked at",
    "data/chat_form.py": "before shards are built",
    "data/build/dialogues.py": "before shards are built",
    "data/read/order.py": "before step 1, of all stages (train/stages.py)",
    "engine/presence.py": "before the group is made; a run that was begun has one value in its folder",
    "estimate/describe.py": "a remark, before step 1",
    "model/families.py": "as the base is looked at",
    "model/int8_loading.py": "as the base is loaded",
    "text/advice.py": "beside counts of records, before any are trained on",
    "text/heldout.py": "before the vocabulary is learnt",
    "vocab/support.py": "before the vocabulary is learnt",
}


def texts(tree: ast.AST) -> Iterator[str]:
    """Every string of a module but for docstrings, "{}" for what is filled in."""
    within = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            within.add(id(node.value))  # a docstring
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
            yield node.value


def refused_advice(source: str) -> list[str]:
    """Texts that advise another value of a fixed key and do not say that this makes another run."""
    found = []
    for text in texts(ast.parse(source)):
        fixed = [key for key in KEY.findall(text) if KEYS.get(key) in FIXED]
        if fixed and ADVISES.search(text) and not any(words in text for words in ELSEWHERE):
            found.append(text)
    return found


def test_advice_on_a_fixed_key_names_another_output_or_comes_early() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): refused
        for path in sorted(PACKAGE.rglob("*.py"))
        if (refused := refused_advice(path.read_text(encoding="utf-8")))
    }
    assert {name: found[name] for name in found.keys() - EARLY.keys()} == {}
    assert EARLY.keys() == found.keys()  # none is excused that no longer says anything


@pytest.mark.parametrize(
    ("source", "is_refused"),
    [
        ('error(f"{x} is not finite: try train.precision=fp32")', True),
        ('error("too few; raise heldout.ratio")', True),
        ('error(f"{x} is not finite: begin another --output with train.precision=fp32, or try it")', False),
        ('error("too many; raise data.max_bad_record_ratio")', False),
        ('"""raise heldout.ratio"""', False),
    ],
)
def test_control_what_this_test_sees(source: str, is_refused: bool) -> None:
    assert bool(refused_advice(source)) is is_refused
