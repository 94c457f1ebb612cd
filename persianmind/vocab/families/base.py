"""What expansion needs of a base tokenizer, and its files; nothing is executed and nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

from persianmind.common.errors import VocabError
from persianmind.language.script import Script
from persianmind.tokenizer import check_tokenizer_size
from persianmind.vocab.families.reader import JsonReader
from persianmind.vocab.learn import Learned, Word

PAD = "[PAD]"


@dataclass(frozen=True)
class BaseFiles:
    """What a base folder (or a bare tokenizer.model) holds, parsed but not judged.

    path: where it was read. model: tokenizer.model. tree: tokenizer.json. config: tokenizer_config.json.
    others: files that the expansion takes over as they are.
    """

    path: Path
    model: bytes | None
    tree: dict[str, Any] | None
    config: dict[str, Any]
    others: dict[str, bytes]

    @property
    def kind(self) -> str:
        """The kind of model as tokenizer.json has it; BPE where there is none."""
        return str((self.tree or {}).get("model", {}).get("type", "BPE"))

    @cached_property
    def added_tokens(self) -> dict[int, dict[str, Any]]:
        """Added tokens by id, of tokenizer.json, or else of tokenizer_config.json or added_tokens.json."""
        if self.tree is not None:
            return {int(token["id"]): token for token in self.tree.get("added_tokens") or []}
        decoder = self.config.get("added_tokens_decoder") or {}
        if decoder:
            return {int(token_id): {"id": int(token_id), **token} for token_id, token in decoder.items()}
        listed = json.loads(self.others.get("added_tokens.json", b"{}"))
        named = json.dumps([self.config, json.loads(self.others.get("special_tokens_map.json", b"{}"))])
        return {
            int(token_id): added_token(int(token_id), content, special=json.dumps(content) in named)
            for content, token_id in listed.items()
        }


class BaseTokenizer(Protocol):
    """A base tokenizer, seen as what expansion needs of it. The text of a piece is UTF-8 bytes."""

    family: ClassVar[str]
    """The family's name, as expansion.json has it."""
    description: ClassVar[str]
    """The family and models of it, for messages."""
    is_independent: ClassVar[bool]
    """Whether `encode` is of another library than tokenizer.json's: then the two can be compared."""
    joins_bytes: ClassVar[bool]
    """Whether its merges put characters together from bytes; SentencePiece's begin with characters."""
    size: int
    """Number of ids, added special tokens included: the first new id."""

    def __init__(self, files: BaseFiles) -> None: ...

    @classmethod
    def recognises(cls, files: BaseFiles) -> bool:
        """Whether the files are a tokenizer of this family."""
        ...

    @property
    def token_bytes(self) -> Mapping[int, bytes]:
        """id -> bytes, for every id that is a piece of text."""
        ...

    def units(self, chunks: Mapping[str, int], script: Script) -> dict[str, int]:
        """Counts the training units of counted chunks: what a piece may not reach over.

        Only units that hold a character of the script are given.
        """
        ...

    def segment(self, units: Mapping[str, int]) -> dict[Word, int]:
        """The same units as base ids."""
        ...

    def ids_of(self, text: str) -> list[int]:
        """Base ids of a piece's text: no special tokens, no prefix space of the tokenizer's own."""
        ...

    def byte_ids(self, token_bytes: bytes) -> list[int]:
        """Base ids of bytes that are no text by themselves: the beginning of a character."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole texts, nothing added and no special token read in them."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are kept."""
        ...

    @property
    def reader(self) -> JsonReader:
        """tokenizer.json as its users read it: the base's own, or where it has none, what ours will be."""
        ...

    def differs_itself(self, text: str) -> bool:
        """Whether the base's own two files give different ids for this text: then neither can be kept to."""
        ...

    def files(self, learned: Learned, *, pad_token: bool) -> dict[str, bytes]:
        """The files of the expanded tokenizer folder, by name."""
        ...


def read_base(path: Path) -> BaseFiles:
    """Reads a Hugging Face folder, or a tokenizer.model alone.

    Raises:
        VocabError: nothing there, or a file that is not what its name says.
    """
    for file in (path, path / "tokenizer.json", path / "tokenizer.model"):
        if file.is_file():
            check_tokenizer_size(file, VocabError)
    if path.is_file() and path.suffix != ".json":
        return BaseFiles(path, path.read_bytes(), None, {}, {})
    if not path.is_dir():
        raise VocabError(f"no base tokenizer at {path}: give a tokenizer.model or a Hugging Face folder")
    model = path / "tokenizer.model"
    tree = _read_mapping(path / "tokenizer.json")
    if tree is None and not model.is_file():
        raise VocabError(
            f"{path} holds neither tokenizer.json nor tokenizer.model: it is no tokenizer folder"
        )
    for name in ("added_tokens.json", "special_tokens_map.json"):
        _read_mapping(path / name)  # a damaged one is refused here
    others = {
        name: (path / name).read_bytes()
        for name in ("added_tokens.json", "chat_template.jinja", "special_tokens_map.json")
        if (path / name).is_file()
    }
    files = BaseFiles(
        path,
        model.read_bytes() if model.is_file() else None,
        tree,
        _read_mapping(path / "tokenizer_config.json") or {},
        others,
    )
    table = (_read_mapping(path / "config.json") or {}).get("vocab_size")
    return _without_unembedded(files, table) if isinstance(table, int) else files


def _without_unembedded(files: BaseFiles, table: int) -> BaseFiles:
    """Leaves out added tokens that the model has no embedding for: the tokenizer of Gemma 3 1B has the image
    token of its larger sisters, one id past its table. New ids begin where the table ends.

    Args:
        table: how many embeddings config.json says that the model has.
    """
    dropped = {token["content"] for token_id, token in files.added_tokens.items() if token_id >= table}
    if not dropped:
        return files

    def kept(node: Any) -> Any:
        """A JSON tree without them: as entries, as names of entries, and as values."""
        if isinstance(node, dict):
            return {key: kept(value) for key, value in node.items() if not {key, _content(value)} & dropped}
        return [kept(one) for one in node if _content(one) not in dropped] if isinstance(node, list) else node

    tree = None if files.tree is None else {**files.tree, "added_tokens": kept(files.tree["added_tokens"])}
    others = {
        name: dump_json(kept(json.loads(content))) if name.endswith(".json") else content
        for name, content in files.others.items()
    }
    return BaseFiles(files.path, files.model, tree, kept(files.config), others)


def _content(node: Any) -> str | None:
    """The string of a token, written alone or with its flags."""
    text = node.get("content") if isinstance(node, dict) else node
    return text if isinstance(text, str) else None


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


def added_token(token_id: int, content: str, *, special: bool = True) -> dict[str, Any]:
    """One entry of tokenizer.json's added_tokens; those that are not special are read in every text."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": content, **flags, "special": special}


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
