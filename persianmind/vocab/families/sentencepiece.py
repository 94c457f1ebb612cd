"""SentencePiece BPE (Llama 2, Mistral, Gemma, Phi-3): tokenizer.model and tokenizer.json with the same ids.

SentencePiece joins any two neighbours whose text together is a piece, the highest score first. New pieces
therefore only need scores below the base's lowest, each lower than the one before.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from persianmind.common.errors import VocabError
from persianmind.common.progress import counted
from persianmind.language.script import Script
from persianmind.tokenizer import is_tiktoken, tiktoken_hint
from persianmind.vocab.families.base import PAD, BaseFiles, dump_json, expanded_config
from persianmind.vocab.families.reader import JsonReader
from persianmind.vocab.families.sp_json import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    USER_DEFINED,
    prefixes_first_only,
    tokenizer_json,
)
from persianmind.vocab.learn import Learned, Word


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
    description: ClassVar[str] = "SentencePiece BPE (Llama 2, Mistral, Gemma, Phi-3)"
    is_independent: ClassVar[bool] = True
    joins_bytes: ClassVar[bool] = False

    def __init__(self, files: BaseFiles) -> None:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

        self._files = files
        if is_tiktoken(files.model or b""):
            raise VocabError(tiktoken_hint(files.path))
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
        if not any(piece.type == BYTE for piece in self._proto.pieces):
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
            if piece.type == BYTE:
                found[token_id] = bytes([int(piece.piece[3:5], 16)])
            elif piece.type in (NORMAL, USER_DEFINED):
                found[token_id] = piece.piece.replace(SPACE, " ").encode("utf-8")
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

    def byte_ids(self, token_bytes: bytes) -> list[int]:
        of_byte = {piece: token_id for token_id, piece in self.token_bytes.items() if len(piece) == 1}
        return [of_byte[token_bytes[i : i + 1]] for i in range(len(token_bytes))]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(self._processor.encode(text)) for text in counted(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode(list(ids)))

    @cached_property
    def reader(self) -> JsonReader:
        tree = self._files.tree
        if tree is None:
            tree = tokenizer_json(self._proto, self._files, first_new=self.size, pad_id=None)
        return JsonReader.parse(dump_json(tree), self._files.path)

    def differs_itself(self, text: str) -> bool:
        first_space = text.startswith(" ") and prefixes_first_only(self._proto, self._files.config)
        by_design = first_space or any(symbol in text for symbol in self._symbols)
        # Where tokenizer.json is made here, all else has to agree.
        if self._files.tree is None and not by_design:
            return False
        return self.reader.encode([text]) != self.encode([text])

    @cached_property
    def _symbols(self) -> list[str]:
        """Added tokens read in every text: SentencePiece knows none, or starts no text anew at them."""
        return self.reader.added(special=False)

    def files(self, learned: Learned, *, pad_token: bool) -> dict[str, bytes]:
        proto = type(self._proto)()
        proto.CopyFrom(self._proto)
        known = {piece.piece for piece in proto.pieces}
        for token_id in range(len(proto.pieces), self.size):  # added tokens hold ids here: keep them in step
            token = self._added.get(token_id, {"content": f"<unused_{token_id}>", "special": True})
            kind = CONTROL if token.get("special") else USER_DEFINED
            proto.pieces.add(piece=token["content"], score=0.0, type=kind)
        score = min(piece.score for piece in self._proto.pieces)
        for token_bytes, _ in learned.pieces:
            score = next_below(score)
            proto.pieces.add(piece=token_bytes.decode("utf-8").replace(" ", SPACE), score=score, type=NORMAL)
        pad_id = len(proto.pieces) if pad_token else None
        if pad_id is not None:
            if PAD in known or PAD in {token["content"] for token in self._added.values()}:
                raise VocabError(f"{self._files.path} already has a {PAD} token; leave out the pad token")
            proto.pieces.add(piece=PAD, score=0.0, type=CONTROL)
            proto.trainer_spec.pad_id = pad_id
            proto.trainer_spec.pad_piece = PAD
        proto.trainer_spec.vocab_size = len(proto.pieces)
        tree = tokenizer_json(proto, self._files, first_new=self.size, pad_id=pad_id)
        return {
            **self._files.others,
            "tokenizer.model": proto.SerializeToString(deterministic=True),
            "tokenizer.json": dump_json(tree),
            "tokenizer_config.json": dump_json(self._config(proto, pad_id)),
        }

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
