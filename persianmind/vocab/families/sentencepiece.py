"""SentencePiece BPE (Llama 1 and 2, Mistral v1): tokenizer.model and tokenizer.json with the same ids.

SentencePiece joins any two neighbours whose text together is a piece, the highest score first. New pieces
therefore only need scores below the base's lowest, each lower than the one before.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from persianmind.common.errors import VocabError
from persianmind.language.script import Script
from persianmind.vocab.families.base import PAD, BaseFiles, added_token, dump_json, expanded_config
from persianmind.vocab.learn import Learned, Word

_SPACE = "\u2581"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


def next_below(score: float) -> float:
    """The next lower whole score, or where float32 has no whole numbers left, the next lower float32."""
    whole = math.floor(score) - 1.0
    if abs(whole) < 2**24:
        return whole
    bits: int = struct.unpack("<I", struct.pack("<f", score))[0]
    lower: float = struct.unpack("<f", struct.pack("<I", bits + 1))[0]
    return lower


class SentencePieceBPE:
    """A SentencePiece BPE base read from tokenizer.model."""

    family: ClassVar[str] = "sentencepiece"
    description: ClassVar[str] = "SentencePiece BPE (Llama 2, Mistral v1)"
    is_independent: ClassVar[bool] = True

    def __init__(self, files: BaseFiles) -> None:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

        self._files = files
        self._proto: Any = sentencepiece_model_pb2.ModelProto()
        try:
            self._proto.ParseFromString(files.model)
        except Exception as error:  # protobuf's DecodeError; its module moves between versions
            raise VocabError(f"{files.path}: tokenizer.model cannot be read: {error}") from None
        self._check()
        self._added = files.added_tokens
        self.size = max([len(self._proto.pieces) - 1, *self._added]) + 1
        self._processor: Any = SentencePieceProcessor(model_proto=files.model)
        bare = sentencepiece_model_pb2.ModelProto()
        bare.CopyFrom(self._proto)
        bare.normalizer_spec.add_dummy_prefix = False
        self._bare: Any = SentencePieceProcessor(model_proto=bare.SerializeToString())

    @classmethod
    def recognises(cls, files: BaseFiles) -> bool:
        return files.model is not None and files.kind == "BPE"

    def _check(self) -> None:
        path, kinds = self._files.path, {1: "Unigram", 3: "word", 4: "character"}
        kind = self._proto.trainer_spec.model_type
        if not self._proto.pieces:
            raise VocabError(f"{path}: tokenizer.model holds no pieces")
        if kind != 2:
            raise VocabError(
                f"{path}: a {kinds.get(kind, 'foreign')} model cannot be expanded; the base must be BPE"
            )
        if not any(piece.type == _BYTE for piece in self._proto.pieces):
            raise VocabError(f"{path}: a base without byte fallback loses characters; it cannot be exact")
        spec = self._proto.normalizer_spec
        if spec.precompiled_charsmap or spec.remove_extra_whitespaces:
            raise VocabError(
                f"{path}: its own normaliser ({spec.name or 'custom'}) rewrites text and would destroy "
                "ZWNJ; the base must use the identity normaliser and keep spaces"
            )

    @cached_property
    def token_bytes(self) -> Mapping[int, bytes]:
        found: dict[int, bytes] = {}
        for token_id, piece in enumerate(self._proto.pieces):
            if piece.type == _BYTE:
                found[token_id] = bytes([int(piece.piece[3:5], 16)])
            elif piece.type in (_NORMAL, _USER_DEFINED):
                found[token_id] = piece.piece.replace(_SPACE, " ").encode("utf-8")
        return found

    def units(self, chunks: Mapping[str, int], script: Script) -> dict[str, int]:
        units: Counter[str] = Counter()
        for chunk, count in chunks.items():
            for unit in script.unit.findall(chunk):
                if script.character.search(unit):
                    units[unit] += count
        return units

    def segment(self, units: Mapping[str, int]) -> dict[Word, int]:
        words: Counter[Word] = Counter()
        for count, ids in zip(units.values(), self._bare.encode(list(units), num_threads=1), strict=True):
            words[tuple(ids)] += count
        return words

    def ids_of(self, text: str) -> list[int]:
        return list(self._bare.encode(text))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(ids) for ids in self._processor.encode(list(texts), num_threads=1)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode(list(ids)))

    def files(self, learned: Learned, *, pad_token: bool) -> dict[str, bytes]:
        proto = type(self._proto)()
        proto.CopyFrom(self._proto)
        known = {piece.piece for piece in proto.pieces}
        for token_id in range(len(proto.pieces), self.size):  # added tokens hold ids here: keep them in step
            content = self._added.get(token_id, {}).get("content", f"<unused_{token_id}>")
            proto.pieces.add(piece=content, score=0.0, type=_CONTROL)
        score = min(piece.score for piece in self._proto.pieces)
        for token_bytes, _ in learned.pieces:
            score = next_below(score)
            proto.pieces.add(
                piece=token_bytes.decode("utf-8").replace(" ", _SPACE), score=score, type=_NORMAL
            )
        pad_id = len(proto.pieces) if pad_token else None
        if pad_id is not None:
            if PAD in known or PAD in {token["content"] for token in self._added.values()}:
                raise VocabError(f"{self._files.path} already has a {PAD} token; leave out the pad token")
            proto.pieces.add(piece=PAD, score=0.0, type=_CONTROL)
            proto.trainer_spec.pad_id = pad_id
            proto.trainer_spec.pad_piece = PAD
        proto.trainer_spec.vocab_size = len(proto.pieces)
        return {
            **self._files.others,
            "tokenizer.model": proto.SerializeToString(deterministic=True),
            "tokenizer.json": dump_json(self._json(proto, pad_id)),
            "tokenizer_config.json": dump_json(self._config(proto, pad_id)),
        }

    def _json(self, proto: Any, pad_id: int | None) -> dict[str, Any]:
        """tokenizer.json with SentencePiece's own pipeline, whatever the base folder had."""
        names = [piece.piece for piece in proto.pieces]
        added = dict(self._added)
        for token_id, piece in enumerate(proto.pieces):
            if piece.type in (_CONTROL, _UNKNOWN) and token_id not in added:
                added[token_id] = added_token(token_id, piece.piece)
        prefix = proto.normalizer_spec.add_dummy_prefix
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        begin = names[proto.trainer_spec.bos_id] if self._adds_bos(proto) else None
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [added[token_id] for token_id in sorted(added)],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Prepend", "prepend": _SPACE}, spaces] if prefix else [spaces],
            },
            "pre_tokenizer": None,
            "post_processor": _begin_with(begin, proto.trainer_spec.bos_id),
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    *([strip] if prefix else []),
                ],
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": names[proto.trainer_spec.unk_id],
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": {name: token_id for token_id, name in enumerate(names)},
                "merges": [list(pair) for pair in merges_of(proto)],
            },
        }

    def _adds_bos(self, proto: Any) -> bool:
        return bool(self._files.config.get("add_bos_token", True)) and proto.trainer_spec.bos_id >= 0

    def _config(self, proto: Any, pad_id: int | None) -> dict[str, Any]:
        specials = {
            name: proto.pieces[token_id].piece
            for name, token_id in (
                ("bos_token", proto.trainer_spec.bos_id),
                ("eos_token", proto.trainer_spec.eos_id),
                ("unk_token", proto.trainer_spec.unk_id),
            )
            if token_id >= 0
        }
        defaults = {**specials, "model_max_length": 10**30}
        return expanded_config({**defaults, **self._files.config}, pad_id)


def merges_of(proto: Any) -> Iterator[tuple[str, str]]:
    """The merges that give SentencePiece's order: by score, then the longer left part first.

    Ties in score (a base's runs of spaces share one) grow from the left in SentencePiece; ranking longer
    left parts first does the same here.
    """
    score_of = {p.piece: p.score for p in proto.pieces if p.type in (_NORMAL, _USER_DEFINED)}
    found = [
        (-score, -cut, -(len(piece) - cut), piece, cut)
        for piece, score in score_of.items()
        for cut in range(1, len(piece))
        if piece[:cut] in score_of and piece[cut:] in score_of
    ]
    found.sort()
    return ((piece[:cut], piece[cut:]) for _, _, _, piece, cut in found)


def _begin_with(token: str | None, token_id: int) -> dict[str, Any] | None:
    """A post-processor that puts the beginning-of-sequence token first, or none."""
    if token is None:
        return None
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = [{"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": list(itertools.chain([special, first], second)),
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }
