"""The tokenizer of a folder as llama.cpp holds it: text, type and score of every id, and the merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persianmind.common.errors import BaseModelError
from persianmind.model.export.gguf.pretokenizer import pre_tokenizer_name
from persianmind.vocab.families.base import BaseFiles, read_base
from persianmind.vocab.families.byte_bpe import ByteBPE

# llama.cpp's types of token; SentencePiece's own have the same numbers.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
_UNUSED_SCORE = -10_000.0
_ADDED_SCORE = -1_000.0


@dataclass(frozen=True)
class GgufVocab:
    """One entry per id in tokens, types and (SentencePiece) scores.

    model: "gpt2" (byte-level BPE) or "llama" (SentencePiece). pre: the pre-tokenizer's name. space_prefix: a
    space is put before a text.
    """

    model: str
    pre: str
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float] | None = None
    merges: Sequence[str] | None = None
    space_prefix: bool = False
    unknown_id: int | None = None

    def add_to(self, writer: Any) -> None:
        """Writes it into a GGUFWriter."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        if self.unknown_id is not None:
            writer.add_unk_token_id(self.unknown_id)
        writer.add_add_space_prefix(self.space_prefix)


def read_vocab(folder: Path, size: int, pre: str | None = None, base: Path | None = None) -> GgufVocab:
    """The tokenizer of an exported folder for a table of `size` ids; those that stand for nothing are UNUSED.

    pre: the name of the pre-tokenizer where llama.cpp's hash does not give it. base: the folder that the
    tokenizer was expanded from, where that is at hand.

    Raises:
        BaseModelError: a tokenizer of another kind, one without the file its ids depend on, or of more ids
            than the table has.
    """
    files = read_base(folder)
    if files.tree is None:
        raise BaseModelError(f"{folder} holds no tokenizer.json; export the model again")
    highest = max([*files.tree["model"]["vocab"].values(), *files.added_tokens])
    if highest >= size:
        raise BaseModelError(
            f"{folder}: token id {highest} has no embedding (vocab_size {size}); export again"
        )
    if ByteBPE.recognises(files):
        return _byte_level(files, size, pre_tokenizer_name(folder, pre, base))
    if files.kind == "BPE" and files.tree["model"].get("byte_fallback"):
        return _sentencepiece(files, size)
    raise BaseModelError(f"{folder}: a {files.kind} tokenizer of this kind is not written as GGUF")


def _byte_level(files: BaseFiles, size: int, pre: str) -> GgufVocab:
    assert files.tree is not None
    tokens = [f"[PAD{token_id}]" for token_id in range(size)]
    types = [_UNUSED] * size
    for token, token_id in files.tree["model"]["vocab"].items():
        tokens[token_id], types[token_id] = token, _NORMAL
    for token_id, added in files.added_tokens.items():
        tokens[token_id] = added["content"]
        types[token_id] = _CONTROL if added.get("special") else _USER_DEFINED
    pairs = files.tree["model"]["merges"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
    return GgufVocab("gpt2", pre, tokens, types, merges=merges)


def _sentencepiece(files: BaseFiles, size: int) -> GgufVocab:
    """Scores and types come from tokenizer.model; without them llama.cpp gives other ids for most texts."""
    assert files.tree is not None
    if (files.tree.get("pre_tokenizer") or {}).get("prepend_scheme") == "first":
        raise BaseModelError(
            f"{files.path}: its tokenizer puts the prefix space at a text's start only, llama.cpp after "
            "every special token too, so all prompts would get other ids; use --format hf"
        )
    proto = _proto(files)
    pieces = {piece.piece: token_id for token_id, piece in enumerate(proto.pieces)}
    listed: Mapping[str, int] = files.tree["model"]["vocab"]
    if {token: token_id for token, token_id in listed.items() if token_id < len(pieces)} != pieces:
        raise BaseModelError(f"{files.path}: tokenizer.model and tokenizer.json are of different tokenizers")
    tokens = [f"[PAD{token_id}]" for token_id in range(size)]
    types, scores = [_UNUSED] * size, [_UNUSED_SCORE] * size
    for token_id, piece in enumerate(proto.pieces):
        tokens[token_id], types[token_id], scores[token_id] = piece.piece, piece.type, piece.score
    for token_id, added in files.added_tokens.items():
        tokens[token_id] = added["content"]
        if types[token_id] != _UNKNOWN:
            types[token_id] = _CONTROL if added.get("special") else _USER_DEFINED
            scores[token_id] = _ADDED_SCORE
    prefix = bool(proto.normalizer_spec.add_dummy_prefix)
    unknown = int(proto.trainer_spec.unk_id)
    return GgufVocab("llama", "default", tokens, types, scores, space_prefix=prefix, unknown_id=unknown)


def _proto(files: BaseFiles) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    if files.model is None:
        raise BaseModelError(
            f"{files.path}: a SentencePiece tokenizer without tokenizer.model, whose scores llama.cpp needs; "
            "copy the base's tokenizer.model beside its tokenizer.json and build the vocabulary anew"
        )
    proto: Any = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(files.model)
    spec = proto.normalizer_spec
    if proto.trainer_spec.model_type != 2 or spec.precompiled_charsmap or spec.remove_extra_whitespaces:
        raise BaseModelError(
            f"{files.path}: only a SentencePiece BPE that leaves text as it is can be written as GGUF"
        )
    return proto
