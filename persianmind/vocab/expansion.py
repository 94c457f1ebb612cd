"""`expansion.json`: what was added to a base tokenizer, for whoever builds a model on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persianmind.common.checksum import read_checked, write_checked
from persianmind.common.errors import DamagedFileError, VocabError
from persianmind.tokenizer import tokenizer_fingerprint

EXPANSION_FILE = "expansion.json"
_VERSION = 2


@dataclass(frozen=True)
class VocabPiece:
    """One new token.

    text: what it stands for, a leading space where a word starts. base_ids: the base tokenizer's ids of that
    text, empty only for [PAD]. count: how often it was joined in training. is_part: it is the beginning of a
    character, and `text` shows its bytes; only byte-level tokenizers have such.
    """

    id: int
    text: str
    base_ids: tuple[int, ...]
    count: int
    is_part: bool = False


@dataclass(frozen=True)
class Fertility:
    """Tokens per word (what white space separates), before and after the expansion."""

    words: int
    before: float
    after: float


@dataclass(frozen=True)
class Gate:
    """What the exactness gate looked at before it let the tokenizer be saved; each with no difference.

    documents: of the training text. foreign: texts of other scripts. pieces: new ones. joined_words: words
    with the script's joiner (ZWNJ).
    """

    documents: int
    foreign: int
    pieces: int
    joined_words: int


@dataclass(frozen=True)
class Expansion:
    """New ids are base_vocab, base_vocab + 1, ... base_vocab + added - 1, in the order of `pieces`.

    family: of the base tokenizer, as vocab/families names it.
    fertility: the new language's over a sample of the training documents, `en` over English prose (there
    before == after).
    fingerprint: tokenizer_fingerprint of its folder; load_expansion refuses a folder that does not match.
    left_out: pieces of a `train_size` BPE that the base's merges make unreachable, so they got no id.
    """

    family: str
    base_vocab: int
    added: int
    pieces: tuple[VocabPiece, ...]
    fertility: Mapping[str, Fertility]
    gate: Gate
    fingerprint: str
    pad_id: int | None = None
    left_out: int = 0

    @property
    def size(self) -> int:
        """Number of ids of the expanded tokenizer."""
        return self.base_vocab + self.added


def write_expansion(folder: Path, expansion: Expansion) -> None:
    """Writes expansion.json, with its checksum, into the tokenizer's folder."""
    write_checked(folder / EXPANSION_FILE, {"version": _VERSION, **asdict(expansion)})


def load_expansion(folder: Path) -> Expansion:
    """Reads an expansion written by `build_vocab` and checks the tokenizer files against it.

    Raises:
        VocabError: no expansion there, a damaged one, or tokenizer files that were changed since.
    """
    path = folder / EXPANSION_FILE
    try:
        tree = read_checked(path, f"restore it, or delete {folder} and build the vocabulary again")
    except FileNotFoundError:
        raise VocabError(
            f"{folder} holds no {EXPANSION_FILE}; make it with `persianmind vocab build`"
        ) from None
    except DamagedFileError as error:
        raise VocabError(str(error)) from None
    if tree.pop("version", None) != _VERSION:
        raise VocabError(f"{path} is of another version of persianmind; build the vocabulary again")
    try:
        expansion = _parse(tree)
    except (KeyError, TypeError, AttributeError):
        raise VocabError(f"{path} is not as this version writes it; build the vocabulary again") from None
    if tokenizer_fingerprint(folder) != expansion.fingerprint:
        raise VocabError(
            f"{folder}: its tokenizer files are not those that {EXPANSION_FILE} was made for; restore them, "
            "or delete the folder and build the vocabulary again"
        )
    return expansion


def _parse(tree: dict[str, Any]) -> Expansion:
    """A tree whose checksum and version are right."""
    pieces = tuple(
        VocabPiece(item["id"], item["text"], tuple(item["base_ids"]), item["count"])
        for item in tree["pieces"]
    )
    fertility = {language: Fertility(**item) for language, item in tree["fertility"].items()}
    return Expansion(**{**tree, "pieces": pieces, "fertility": fertility, "gate": Gate(**tree["gate"])})
