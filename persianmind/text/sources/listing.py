"""Which files below a folder (or among the matches of a glob) are the source's text, and why others are not.

Nothing is left out in silence: each file that is not read is listed with its size and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from persianmind.text.formats import supported_kinds
from persianmind.text.sources.base import SourceFile

# The words and their meaning are those of the hub, where a data set's splits are told from names of files.
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_EDGE_LEFT, _EDGE_RIGHT = r"(?:^|[-._ 0-9/])", r"(?=[-._ 0-9/]|$)"
_ANYWHERE = {
    split: re.compile(f"{_EDGE_LEFT}(?:{'|'.join(words)}){_EDGE_RIGHT}")
    for split, words in _SPLIT_WORDS.items()
}
# A whole folder name, or the end of a file's: test, wiki_test, test-00000-of-00012-0a1b2c.
_WHOLE = {
    split: re.compile(
        rf"(?:^|/|[-_. ])(?:{'|'.join(words)})(?:[-_ ]?\d+(?:[-_ ]of[-_ ]\d+)?(?:-[0-9a-f]+)?)?(?:/|\.|$)"
    )
    for split, words in _SPLIT_WORDS.items()
}
_ABOUT_NAMES = {
    "authors", "changelog", "citation", "contributing", "copying", "licence", "license", "notice", "readme",
}  # fmt: skip
_ABOUT_FILES = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}
_DEBRIS = {"__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini", "lost+found"}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not read. path: below the folder that was named; size_bytes: None where unknown."""

    path: str
    size_bytes: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source in their fixed order, and those that are not read."""

    files: Sequence[SourceFile]
    left_out: Sequence[LeftOut] = ()


def why_no_text(path: str) -> str | None:
    """Why a file is none of the source's text, by its path alone; None where that does not say so."""
    parts = PurePosixPath(path).parts
    if any(part.startswith(".") or part in _DEBRIS for part in parts):
        return "hidden, or of another program"
    name = parts[-1].lower()
    if name in _ABOUT_FILES or (re.split(r"[._-]", name)[0] in _ABOUT_NAMES and _is_prose(name)):
        return "about the data, not the data"
    return None


def other_splits(paths: Iterable[str], named: str = "") -> dict[str, str]:
    """Of the paths that are of a split for testing or validation: why each is left out.

    Beside a file that is said to be of the training split (train_fa.jsonl), the word may stand anywhere
    between marks; else it must be a whole name or its end, so that test-driven-development.txt is a text like
    any other.

    Args:
        named: what the recipe says (a glob): a split that it names itself is wanted.
    """
    paths = list(paths)
    beside_train = {
        path.parent for path in map(PurePosixPath, paths) if _ANYWHERE["train"].search(path.name.lower())
    }
    wanted = {split for split in _SPLIT_WORDS if _ANYWHERE[split].search(named.lower())}
    found = {}
    for path in paths:
        words = _ANYWHERE if PurePosixPath(path).parent in beside_train else _WHOLE
        splits = [split for split in ("test", "validation") if words[split].search(path.lower())]
        # of both, as in train/test-cases.jsonl: a folder of the training split holds nothing else
        if splits and splits[0] not in wanted and not words["train"].search(path.lower()):
            found[path] = f"the {splits[0]} split: only the training split is read; name it to have it"
    return found


def nothing_left(left_out: Sequence[LeftOut]) -> str:
    """For the message where every file was left out: the first few and why, and what would be read."""
    shown = "; ".join(f"{one.path} is {one.reason}" for one in left_out[:3])
    more = f", and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return f" ({shown or 'it is empty'}{more}); give {supported_kinds()}"


def _is_prose(name: str) -> bool:
    return PurePosixPath(name).suffix in ("", ".txt", ".md", ".rst", ".html", ".cff")
