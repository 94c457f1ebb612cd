"""Reading a base tokenizer and telling its family; nothing is executed and nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from persianmind.common.errors import VocabError
from persianmind.vocab.expansion import Family
from persianmind.vocab.learn import Learned, Word

PAD = "[PAD]"


class Base(Protocol):
    """A base tokenizer, seen as what expansion needs of it. Surfaces are UTF-8 bytes."""

    family: Family
    size: int
    """Number of ids, added special tokens included: the first new id."""

    @property
    def token_bytes(self) -> Mapping[int, bytes]:
        """id -> bytes, for every id that is a piece of text."""
        ...

    def units(self, chunks: Mapping[str, int]) -> dict[str, int]:
        """Counts the training units of counted chunks: what a piece may not reach over. Persian ones only."""
        ...

    def segment(self, units: Mapping[str, int]) -> dict[Word, int]:
        """The same units as base ids."""
        ...

    def ids_of(self, text: str) -> list[int]:
        """Base ids of a piece's surface: no special tokens, no prefix space of the tokenizer's own."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole texts, without special tokens: what must not change for non-Persian text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are kept."""
        ...

    def files(self, learned: Learned, *, pad_token: bool) -> dict[str, bytes]:
        """The files of the expanded tokenizer folder, by name."""
        ...


@dataclass(frozen=True)
class BaseFiles:
    """What a base folder (or a bare tokenizer.model) holds, parsed but not judged."""

    place: Path
    model: bytes | None
    tree: dict[str, Any] | None
    config: dict[str, Any]
    others: dict[str, bytes]

    @property
    def added_tokens(self) -> dict[int, dict[str, Any]]:
        """Added tokens by id, of tokenizer.json or else of tokenizer_config.json."""
        if self.tree is not None:
            return {int(token["id"]): token for token in self.tree.get("added_tokens") or []}
        decoder = self.config.get("added_tokens_decoder") or {}
        return {int(number): {"id": int(number), **token} for number, token in decoder.items()}


def read_base(place: Path) -> BaseFiles:
    """Reads a Hugging Face folder, or a tokenizer.model alone.

    Raises:
        VocabError: nothing there, or a file that is not what its name says.
    """
    if place.is_file() and place.suffix != ".json":
        return BaseFiles(place, place.read_bytes(), None, {}, {})
    if not place.is_dir():
        raise VocabError(f"no base tokenizer at {place}: give a tokenizer.model or a Hugging Face folder")
    model = place / "tokenizer.model"
    tree = _read_mapping(place / "tokenizer.json")
    if tree is None and not model.is_file():
        raise VocabError(
            f"{place} holds neither tokenizer.json nor tokenizer.model: it is no tokenizer folder"
        )
    others = {
        name: (place / name).read_bytes()
        for name in ("chat_template.jinja", "special_tokens_map.json")
        if (place / name).is_file()
    }
    return BaseFiles(
        place,
        model.read_bytes() if model.is_file() else None,
        tree,
        _read_mapping(place / "tokenizer_config.json") or {},
        others,
    )


def open_base(place: Path) -> Base:
    """Opens a base tokenizer of either family.

    Raises:
        VocabError: a tokenizer of another kind (Unigram, WordPiece, ...), or a damaged one.
    """
    return _open(read_base(place))


def open_files(files: Mapping[str, bytes]) -> Base:
    """Opens the files that `Base.files` gave, without a folder."""
    tree, config = json.loads(files["tokenizer.json"]), json.loads(files["tokenizer_config.json"])
    return _open(BaseFiles(Path("(expanded)"), files.get("tokenizer.model"), tree, config, {}))


def _open(files: BaseFiles) -> Base:
    from persianmind.vocab.families.byte_bpe import ByteBPE
    from persianmind.vocab.families.sentencepiece import SentencePieceBPE

    place = files.place
    kind = (files.tree or {}).get("model", {}).get("type", "BPE")
    if kind != "BPE":
        raise VocabError(
            f"{place}: a {kind} tokenizer cannot be expanded; the base must be SentencePiece BPE "
            "(Llama 2, Mistral v1) or byte-level BPE (Llama 3, Qwen, SmolLM2)"
        )
    if files.tree is not None and _has_byte_level(files.tree.get("pre_tokenizer")):
        return ByteBPE(files)
    if files.model is not None:
        return SentencePieceBPE(files)
    raise VocabError(
        f"{place}: neither byte-level BPE nor a folder with SentencePiece's tokenizer.model; "
        "copy the model's tokenizer.model beside its tokenizer.json"
    )


def _has_byte_level(node: Any) -> bool:
    if not isinstance(node, dict):
        return False
    parts = node.get("pretokenizers") or []
    return node.get("type") == "ByteLevel" or any(_has_byte_level(part) for part in parts)


def _read_mapping(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both ValueErrors
        raise VocabError(f"{path} is not valid JSON ({error}); copy the base tokenizer again") from None
    if not isinstance(tree, dict):
        raise VocabError(f"{path} is not a JSON object; copy the base tokenizer again")
    return tree


def dump_json(tree: Any) -> bytes:
    """JSON bytes that depend on the content alone; compact, because tokenizer.json has 100,000 entries."""
    return (json.dumps(tree, ensure_ascii=False) + "\n").encode("utf-8")


def added_token(number: int, content: str) -> dict[str, Any]:
    """One entry of tokenizer.json's added_tokens, special."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **flags}


def expanded_config(config: Mapping[str, Any], pad_id: int | None) -> dict[str, Any]:
    """tokenizer_config.json of the result.

    The class loads tokenizer.json as it is (several others rebuild the pipeline in code), and no space is
    "cleaned up" in decoding: both would break decode(encode(x)) == x.
    """
    result = {**config, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for stale in ("auto_map", "is_local", "local_files_only", "backend", "name_or_path", "tokenizer_file"):
        result.pop(stale, None)
    if pad_id is not None:
        result["pad_token"] = PAD
        if "added_tokens_decoder" in result:
            entry = {key: value for key, value in added_token(pad_id, PAD).items() if key != "id"}
            result["added_tokens_decoder"] = {**result["added_tokens_decoder"], str(pad_id): entry}
    return result
