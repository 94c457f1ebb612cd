"""`expansion.json`: what was added to a base tokenizer, for whoever builds a model on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from persianmind.common.atomic import read_json
from persianmind.common.checksum import hash_file, hash_text
from persianmind.common.errors import PersianMindError, VocabError

Family = Literal["byte-bpe", "sentencepiece"]
EXPANSION_FILE = "expansion.json"
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
_VERSION = 1


@dataclass(frozen=True)
class Piece:
    """One new row. `text`: its surface, a leading space where a word starts; `base_ids`: the base
    tokenizer's ids of that surface, empty only for [PAD]; `count`: how often it was joined in training."""

    id: int
    text: str
    base_ids: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Fertility:
    """Tokens a whitespace word."""

    words: int
    before: float
    after: float


@dataclass(frozen=True)
class Gate:
    """What the exactness gate looked at before it let the tokenizer be saved; each with no difference."""

    rows: int
    foreign: int
    pieces: int
    zwnj_words: int


@dataclass(frozen=True)
class Expansion:
    """New ids are base_vocab, base_vocab + 1, ... base_vocab + added - 1, in the order of `pieces`.

    fertility: `fa` over a sample of the training documents, `en` over English prose (before == after).
    fingerprint: hash over the tokenizer's files; load_expansion refuses a folder that does not match.
    left_out: pieces of a `train_size` BPE that the base's merges make unreachable, so they got no row.
    """

    family: Family
    base_vocab: int
    added: int
    pieces: tuple[Piece, ...]
    fertility: Mapping[str, Fertility]
    gate: Gate
    fingerprint: str
    pad_id: int | None = None
    left_out: int = 0

    @property
    def size(self) -> int:
        """Number of ids of the expanded tokenizer."""
        return self.base_vocab + self.added

    def to_json(self) -> dict[str, Any]:
        return {"version": _VERSION, **asdict(self)}


def fingerprint(folder: Path) -> str:
    """Hash over names and contents of the tokenizer files in `folder`; other files may lie beside them."""
    parts: list[str] = []
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            parts += [name, hash_file(folder / name)]
    return hash_text(*parts)


def load_expansion(folder: Path) -> Expansion:
    """Reads an expansion written by `build_vocab` and checks the tokenizer files against it.

    Raises:
        VocabError: no expansion there, a damaged one, or tokenizer files that were changed since.
    """
    path = folder / EXPANSION_FILE
    if not path.is_file():
        raise VocabError(f"{folder} holds no {EXPANSION_FILE}; make it with `persianmind vocab build`")
    try:
        tree = read_json(path)
        if tree.pop("version") != _VERSION:
            raise VocabError(f"{path} is of another version of persianmind; build the vocabulary again")
        tree["pieces"] = tuple(
            Piece(item["id"], item["text"], tuple(item["base_ids"]), item["count"]) for item in tree["pieces"]
        )
        tree["fertility"] = {name: Fertility(**item) for name, item in tree["fertility"].items()}
        expansion = Expansion(**{**tree, "gate": Gate(**tree["gate"])})
    except (KeyError, TypeError, AttributeError, PersianMindError) as error:
        raise VocabError(f"{path} is damaged ({error}); build the vocabulary again") from None
    if fingerprint(folder) != expansion.fingerprint:
        raise VocabError(f"{folder}: its tokenizer files are not those that {EXPANSION_FILE} was made for")
    return expansion
