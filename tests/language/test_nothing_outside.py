"""Whatever is particular to Persian belongs to its profile: no other code names it or speaks it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launch import ROOT

FOLDERS = ("persianmind", "cluster", "ds_configs", "launcher/train.py")
SUFFIXES = {".py", ".yaml", ".json", ".j2", ".css", ".txt"}
# Profiles; layouts, suites and figures of public sets that are Persian themselves and are named as published;
# names of packages whose text is Persian.
ABOUT_PERSIAN = (
    "persianmind/language/",
    "persianmind/evaluate/layouts/",
    "persianmind/evaluate/suites/",
    "persianmind/evaluate/published.py",
)
# The project's own name, and names of published sets, are no words of the language.
OWN_NAME = re.compile(r"persianmind|persiannlp", re.IGNORECASE)
WORD = re.compile(
    r"persian|farsi|\biran|[\"']fa[\"']|[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]|\\u06[0-9a-f]{2}",
    re.IGNORECASE,
)
# One place names the language of sources that name none.
DEFAULT = 'DEFAULT_LANGUAGE = "fa"'


def spoken(root: Path) -> Iterator[str]:
    """Lines that name or speak Persian, in the files that are to know no language."""
    for folder in FOLDERS:
        paths = sorted((root / folder).rglob("*")) if (root / folder).is_dir() else [root / folder]
        for path in paths:
            name = path.relative_to(root).as_posix()
            if path.suffix not in SUFFIXES or name.startswith(ABOUT_PERSIAN):
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if WORD.search(OWN_NAME.sub("", line)) and line != DEFAULT:
                    yield f"{name}:{number}: {line.strip()}"


def test_nothing_outside_the_profiles_says_persian() -> None:
    assert list(spoken(ROOT)) == []


@pytest.mark.parametrize(
    "planted",
    ["# as in Persian", 'HELLO = "سلام"', 'LANGUAGE = "fa"', "X = '\\u06cc'", "# Farsi text", "persian = 1"],
)
def test_control_a_planted_word_is_found(planted: str, tmp_path: Path) -> None:
    for folder in FOLDERS:
        place = tmp_path / folder
        (place.parent if place.suffix else place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "launcher" / "train.py").write_text("import persianmind\n", encoding="utf-8")
    assert list(spoken(tmp_path)) == []
    (tmp_path / "persianmind" / "shared.py").write_text(f"import persianmind\n{planted}\n", encoding="utf-8")
    assert list(spoken(tmp_path)) == [f"persianmind/shared.py:2: {planted}"]
