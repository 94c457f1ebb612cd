"""Text that installed Python packages carry: the embedded demo needs no network beyond a package index.

| name | carries | licence |
| --- | --- | --- |
| hafez | 495 poems of Hafez, each with its prose interpretations | MIT (the poems are of the 14th century) |
| hafez-instruct | the same poems as instruction records: interpret this poem | MIT |
| gettext-CODE | messages of Django, wagtail and Sphinx in a language (gettext-ka: Georgian) | BSD |
| gettext-instruct | those of gettext-fa as translation records, both directions | BSD |
| python-topics | the English language reference in `pydoc_data.topics` | PSF |

Files are read as data; no code of these packages is imported.
"""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, ClassVar

from persianmind.common.default_language import DEFAULT_LANGUAGE
from persianmind.common.errors import SourceError, nearest
from persianmind.language import profile_for
from persianmind.recipe import Source
from persianmind.text.formats.base import after
from persianmind.text.record import Payload, Record
from persianmind.text.sources.listing import Listing

CATALOGUE_DISTRIBUTIONS = ("Django", "wagtail", "Sphinx")
MIN_MESSAGE_CHARACTERS = 12
_CATALOGUE = "gettext-"

KeyedFields = Iterator[tuple[str, dict[str, Any]]]  # (key of the document, fields)


@dataclass(frozen=True, slots=True)
class PackageText:
    """One `package://` name. Its identity is that name: the text comes with an installed, versioned
    package."""

    uri: str
    name: str
    format: ClassVar[str] = ""
    size_bytes: ClassVar[int | None] = None
    remote: ClassVar[bool] = False

    def read(self, source_name: str, source: Source, skip: int) -> Iterator[tuple[int, Payload]]:
        """Whole records: their keys come from the package."""
        return after(enumerate(read_package(source_name, self.name), start=1), skip)

    def check(self, source_name: str, source: Source) -> None:
        """That the package is there was checked when it was located."""

    def identity(self) -> str:
        """Nothing beside its name."""
        return ""


def list_package(source_name: str, uri: str) -> Listing:
    """The text at `package://NAME`.

    Raises:
        SourceError: the name is unknown, or the package that carries it is not installed.
    """
    name = uri.removeprefix("package://")
    check_package(name)
    return Listing([PackageText(uri, name)])


def read_package(source_name: str, package: str) -> Iterator[Record]:
    """Streams the records of one `package://` source, always in the same order.

    Raises:
        SourceError: the name is unknown, or the package that carries it is not installed.
    """
    for number, (key, fields) in enumerate(_reader(package)()):
        yield Record(source=source_name, key=key, place=f"package://{package}:{number + 1}", fields=fields)


def check_package(package: str) -> None:
    """Raises SourceError when `package://package` cannot be read; reads no text."""
    _reader(package)
    for name in _CARRIERS.get(package, CATALOGUE_DISTRIBUTIONS):
        package_folder(name)


def package_folder(distribution_name: str) -> Path:
    """The folder in which an installed distribution's files lie.

    Raises:
        SourceError: it is not installed; the message gives the command that installs it.
    """
    try:
        return Path(str(distribution(distribution_name).locate_file("")))
    except PackageNotFoundError:
        raise SourceError(
            f"the package {distribution_name} is not installed; run `make setup`, "
            f"or: pip install --no-deps {distribution_name}"
        ) from None


def _reader(package: str) -> Callable[[], KeyedFields]:
    if package in _READERS:
        return _READERS[package]
    code = package.removeprefix(_CATALOGUE)
    codes = _catalogue_codes() if code != package else frozenset[str]()
    if codes and code not in codes:
        raise SourceError(
            f"package://{package}: no catalogue of messages in {code!r}; there are: "
            f"{', '.join(sorted(codes))}"
        )
    if code == package or not re.fullmatch("[A-Za-z_]+", code):
        known = [*_READERS, f"{_CATALOGUE}CODE"]
        raise SourceError(
            f"package://{package}: unknown{nearest(package, known)}; known are: {', '.join(known)}"
        )
    return lambda: _gettext(code)


def _hafez_entries() -> list[dict[str, Any]]:
    path = package_folder("hafez") / "hafez" / "data" / "hafez.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def _hafez() -> KeyedFields:
    """Poem and prose are two records of one document: they pack better apart and are held out together."""
    for entry in _hafez_entries():
        key = f"hafez/{entry['id']}"
        prose = [entry["interpretation"], entry["alt_interpretation"]]
        yield key, {"text": "\n".join(entry["poem"]).strip()}
        if text := "\n\n".join(part.strip() for part in prose if part and part.strip()):
            yield key, {"text": text}


def _hafez_instruct() -> KeyedFields:
    for entry in _hafez_entries():
        poem = "\n".join(entry["poem"][:4])
        for instruction, answer in (
            (_question("interpret_poem"), entry["interpretation"]),
            (_question("omen_of_poem"), entry["alt_interpretation"]),
        ):
            if answer and answer.strip():
                fields = {"instruction": instruction, "input": poem, "output": answer.strip()}
                yield f"hafez/{entry['id']}", fields


def _question(name: str) -> str:
    """What an instruction record of these packages asks."""
    return profile_for(DEFAULT_LANGUAGE).phrases.questions[name].question


def _messages(code: str) -> Iterator[tuple[str, str]]:
    """(English, translation) of every finished, unique message, in a fixed order of files."""
    import polib

    seen: set[str] = set()
    for name in CATALOGUE_DISTRIBUTIONS:
        root = package_folder(name) / name.lower()
        for path in sorted(root.rglob(f"locale/{code}/LC_MESSAGES/*.po")):
            for entry in polib.pofile(str(path)):
                finished = entry.msgstr and not entry.fuzzy and not entry.obsolete
                if finished and entry.msgid not in seen and len(entry.msgstr) >= MIN_MESSAGE_CHARACTERS:
                    seen.add(entry.msgid)
                    yield entry.msgid.strip(), entry.msgstr.strip()


def _gettext(code: str) -> KeyedFields:
    for english, translated in _messages(code):
        yield f"gettext/{english}", {"text": translated}


@cache
def _catalogue_codes() -> frozenset[str]:
    """Languages that the catalogues have, as their folders name them; none where a package is not there."""
    try:
        roots = [package_folder(name) / name.lower() for name in CATALOGUE_DISTRIBUTIONS]
    except SourceError:
        return frozenset()
    return frozenset(path.parent.name for root in roots for path in root.rglob("locale/*/LC_MESSAGES"))


def _gettext_instruct() -> KeyedFields:
    asked = _question("translate_message")
    for english, translated in _messages(DEFAULT_LANGUAGE):
        key = f"gettext/{english}"
        yield key, {"instruction": asked, "input": english, "output": translated}
        yield (
            key,
            {"instruction": "Translate this text into English.", "input": translated, "output": english},
        )


def _python_topics() -> KeyedFields:
    """`pydoc_data.topics` is a Python file with one literal; it is parsed, never executed."""
    path = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    literal = next(node.value for node in tree.body if isinstance(node, ast.Assign))
    topics: dict[str, str] = ast.literal_eval(literal)
    for name in sorted(topics):
        yield f"python-topics/{name}", {"text": topics[name].strip()}


_READERS: dict[str, Callable[[], KeyedFields]] = {
    "hafez": _hafez,
    "hafez-instruct": _hafez_instruct,
    "gettext-instruct": _gettext_instruct,
    "python-topics": _python_topics,
}
_CARRIERS: dict[str, tuple[str, ...]] = {
    "hafez": ("hafez",),
    "hafez-instruct": ("hafez",),
    "gettext-instruct": CATALOGUE_DISTRIBUTIONS,
    "python-topics": (),
}
