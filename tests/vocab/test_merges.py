"""Merges of an expanded SentencePiece tokenizer.json, where a new piece is a part of an old one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from persianmind.vocab.families.base import BaseFiles, dump_json
from persianmind.vocab.families.sp_json import tokenizer_json

# "abc" is in the base and no two of its parts are: only the new "ab" makes it.
BASE = {"a": -10.0, "b": -11.0, "c": -12.0, "e": -13.0, "abc": -1.0, "ee": -2.0}
NEW = {"ab": -20.0, "ce": -21.0, "abe": -22.0}


def _proto(pieces: dict[str, float]) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.bos_id = proto.trainer_spec.eos_id = proto.trainer_spec.pad_id = -1
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.pieces.add(piece="<unk>", score=0.0, type=2)
    for byte in range(256):
        proto.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=6)
    for piece, score in pieces.items():
        proto.pieces.add(piece=piece, score=score, type=1)
    return proto


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_an_old_piece_out_of_a_new_one(at_the_end: bool, as_text: bool) -> None:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

    base, whole = _proto(BASE), _proto({**BASE, **NEW})
    nothing = BaseFiles(Path("base"), None, None, {}, {})
    tree = tokenizer_json(base, nothing, first_new=len(base.pieces), pad_id=None)
    if as_text:
        tree["model"]["merges"] = [" ".join(pair) for pair in tree["model"]["merges"]]
    own = BaseFiles(Path("base"), None, tree, {}, {})
    made = tokenizer_json(whole, own, first_new=len(base.pieces), pad_id=None)
    merges = made["model"]["merges"]
    if at_the_end:  # the control: as merges of new pieces are usually appended
        merges.sort(key=lambda pair: ("".join(pair) if not as_text else pair.replace(" ", "")) == "abc")
    tokenizer = Tokenizer.from_str(dump_json(made).decode())
    reference = SentencePieceProcessor(model_proto=whole.SerializeToString())
    texts = ["".join(letters) for n in range(1, 7) for letters in itertools.product("abce", repeat=n)]
    found, expected = tokenizer.encode_batch(texts), reference.encode(texts)
    differing = [
        text for text, ours, theirs in zip(texts, found, expected, strict=True) if ours.ids != theirs
    ]
    assert ("abce" in differing) == at_the_end
    assert bool(differing) == at_the_end
