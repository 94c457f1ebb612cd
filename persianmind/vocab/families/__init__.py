"""The families of tokenizer that can be expanded: a module with a class each, and its line in FAMILIES."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from persianmind.common.errors import VocabError
from persianmind.vocab.families.base import BaseFiles, BaseTokenizer, read_base
from persianmind.vocab.families.byte_bpe import ByteBPE
from persianmind.vocab.families.sentencepiece import SentencePieceBPE

# Asked in this order; the first that recognises the files opens them.
FAMILIES: tuple[type[BaseTokenizer], ...] = (
    ByteBPE,
    SentencePieceBPE,
)


def open_base(path: Path) -> BaseTokenizer:
    """Opens a base tokenizer of any family: a Hugging Face folder, or a tokenizer.model alone.

    Raises:
        VocabError: a tokenizer of another kind (Unigram, WordPiece, ...), or a damaged one.
    """
    return _open(read_base(path))


def open_files(files: Mapping[str, bytes]) -> BaseTokenizer:
    """Opens the files that `BaseTokenizer.files` gave, without a folder."""
    tree, config = json.loads(files["tokenizer.json"]), json.loads(files["tokenizer_config.json"])
    return _open(BaseFiles(Path("(expanded)"), files.get("tokenizer.model"), tree, config, {}))


def _open(files: BaseFiles) -> BaseTokenizer:
    for family in FAMILIES:
        if family.recognises(files):
            return family(files)
    known = " or ".join(family.description for family in FAMILIES)
    if files.kind != "BPE":
        raise VocabError(
            f"{files.path}: a {files.kind} tokenizer cannot be expanded; the base must be {known}"
        )
    raise VocabError(
        f"{files.path}: neither byte-level BPE nor a folder with SentencePiece's tokenizer.model; "
        "copy the model's tokenizer.model beside its tokenizer.json"
    )
