"""Held-out text: selected from the raw sources once, written, and read by whoever needs it.

A folder of `LANGUAGE.jsonl`, a checked line for each document, and `index.json`, which says what they were
selected from and what they hold. The index is written last: a folder without one holds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from persianmind.common.atomic import write_text
from persianmind.common.bounded import BoundedModel
from persianmind.common.checksum import (
    dump_checked_line,
    hash_file,
    hash_text,
    parse_checked_line,
    read_checked,
    write_checked,
)
from persianmind.common.errors import DamagedFileError, DataError, EmptyCorpusError
from persianmind.recipe import Recipe
from persianmind.text.corpus import clean_documents
from persianmind.text.dedup import text_fingerprint
from persianmind.text.sources.locate import source_fingerprint
from persianmind.text.spec import source_specs

INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class HeldOutDocument:
    """One document. text: its turns joined by newlines where it is a dialogue; fingerprint: of its turns."""

    key: str
    source: str
    text: str
    fingerprint: int


class _Closed(BoundedModel):
    model_config = ConfigDict(extra="forbid")


class HeldOutLanguage(_Closed):
    """What one language's file holds. hash: xxh3-128 of its bytes; fingerprints: of the texts, in hex."""

    n_documents: int
    n_characters: int
    n_bytes: int
    hash: str
    fingerprints: list[str]


class HeldOutIndex(_Closed):
    """index.json. built_from: a hash over the settings and the identities of the sources."""

    built_from: str
    languages: dict[str, HeldOutLanguage]


def select_held_out(recipe: Recipe) -> dict[str, list[HeldOutDocument]]:
    """The documents that the recipe evaluates, by language, in reading order of `heldout.sources`.

    A language ends once `heldout.max_characters` are reached; its last document is given whole.
    """
    selected: dict[str, list[HeldOutDocument]] = {}
    characters: dict[str, int] = {}
    for spec in source_specs(recipe, recipe.heldout.sources):
        language = spec.source.target
        documents = selected.setdefault(language, [])
        if characters.setdefault(language, 0) >= recipe.heldout.max_characters:
            continue
        for document in clean_documents(spec, held_out=True):
            text = _beginning("\n".join(document.texts), recipe.heldout.max_document_characters)
            documents.append(
                HeldOutDocument(document.key, spec.name, text, text_fingerprint(*document.texts))
            )
            characters[language] += len(text)
            if characters[language] >= recipe.heldout.max_characters:
                break
    return selected


def _beginning(text: str, characters: int | None) -> str:
    """At most so many characters, cut at white space where there is some."""
    if characters is None or len(text) <= characters:
        return text
    cut = text[:characters]
    return cut if text[characters].isspace() else cut.rsplit(None, 1)[0]


def write_held_out(recipe: Recipe, folder: Path) -> None:
    """Selects and writes the held-out text of a recipe; returns at once where it is there already.

    Raises:
        EmptyCorpusError: no document of an evaluated language fell into the split; nothing is written.
        DataError: what is there is damaged.
    """
    built_from = _built_from(recipe)
    if not recipe.heldout.sources or _is_written(folder, built_from):
        return
    selected = select_held_out(recipe)
    for language, documents in selected.items():
        if not documents:
            raise EmptyCorpusError(
                f"no document of language {language!r} fell into the held-out split; raise heldout.ratio="
                f"{recipe.heldout.ratio:g} or add sources to heldout.sources"
            )
    (folder / INDEX).unlink(missing_ok=True)  # of other settings: it names what follows
    languages = {language: _write(folder, language, documents) for language, documents in selected.items()}
    index = HeldOutIndex(built_from=built_from, languages=languages)
    write_checked(folder / INDEX, index.model_dump(mode="json"))


def read_held_out(folder: Path, language: str) -> list[HeldOutDocument]:
    """The held-out documents of one language, in the order they were selected in.

    Raises:
        DataError: there are none, or the file is damaged; the message names it and the fix.
    """
    entry = read_index(folder).languages.get(language)
    if entry is None:
        raise DataError(
            f"{folder} holds no text of language {language!r}; give one that is held out, or "
            "another --output with a source of it in heldout.sources"
        )
    path = _verify(folder, language, entry)
    documents = []
    fingerprints = iter(entry.fingerprints)
    for line in path.read_bytes().splitlines():
        record = parse_checked_line(line)
        if record is None:
            raise _damaged(path)
        documents.append(
            HeldOutDocument(record["key"], record["source"], record["text"], int(next(fingerprints), 16))
        )
    return documents


def held_out_fingerprints(folder: Path | None) -> frozenset[int]:
    """Fingerprints of all held-out texts, in every language; none without a folder.

    A training document with one of them is the same text under another key: it must not be trained on.

    Raises:
        DataError: the index is missing or damaged.
    """
    if folder is None:
        return frozenset()
    languages = read_index(folder).languages.values()
    return frozenset(int(one, 16) for entry in languages for one in entry.fingerprints)


def fingerprints_of(selected: Mapping[str, Iterable[HeldOutDocument]]) -> frozenset[int]:
    """`held_out_fingerprints` of what `select_held_out` returned, where nothing is written."""
    return frozenset(document.fingerprint for documents in selected.values() for document in documents)


def read_index(folder: Path) -> HeldOutIndex:
    """What the folder holds.

    Raises:
        DataError: the index is missing or damaged.
    """
    path = folder / INDEX
    try:
        return HeldOutIndex.model_validate(read_checked(path))
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no held-out text ({INDEX} is missing); prepare the run first"
        ) from None
    except (DamagedFileError, ValidationError):
        raise _damaged(path) from None


def _write(folder: Path, language: str, documents: list[HeldOutDocument]) -> HeldOutLanguage:
    path = _path(folder, language)
    lines = [dump_checked_line({"key": one.key, "source": one.source, "text": one.text}) for one in documents]
    write_text(path, "".join(line + "\n" for line in lines))
    return HeldOutLanguage(
        n_documents=len(documents),
        n_characters=sum(len(one.text) for one in documents),
        n_bytes=sum(len(one.text.encode("utf-8")) for one in documents),
        hash=hash_file(path),
        fingerprints=[f"{one.fingerprint:016x}" for one in documents],
    )


def _is_written(folder: Path, built_from: str) -> bool:
    """Whether the folder holds, undamaged, what would be selected now."""
    if not (folder / INDEX).is_file():
        return False
    index = read_index(folder)
    if index.built_from != built_from:
        return False
    for language, entry in index.languages.items():
        _verify(folder, language, entry)
    return True


def _verify(folder: Path, language: str, entry: HeldOutLanguage) -> Path:
    path = _path(folder, language)
    if not path.is_file() or hash_file(path) != entry.hash:
        raise _damaged(path)
    return path


def _built_from(recipe: Recipe) -> str:
    """A hash over all that the selection depends on."""
    specs = source_specs(recipe, recipe.heldout.sources)
    settings = recipe.heldout.model_dump_json()
    parts = [part for one in specs for part in (one.content_json(), source_fingerprint(one.name, one.source))]
    return hash_text(settings, *parts)


def _path(folder: Path, language: str) -> Path:
    return folder / f"{language}.jsonl"


def _damaged(path: Path) -> DataError:
    return DataError(
        f"{path} is missing or damaged (its checksum does not match); delete {path.parent} and run the same "
        "command, it is written again"
    )
