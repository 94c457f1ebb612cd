"""tokenizer.json beside an expanded tokenizer.model: the base's own pipeline, or SentencePiece's."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from typing import Any

from persianmind.vocab.families.base import BaseFiles, added_token

SPACE = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
_PIPELINE = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def tokenizer_json(proto: Any, files: BaseFiles, *, first_new: int, pad_id: int | None) -> dict[str, Any]:
    """Makes tokenizer.json for a model.

    What a base does before and after its merges is kept: whether text after a special token gets the prefix
    space is written there and nowhere else.

    Args:
        proto: the model, with the new pieces in it.
        files: of the base; its tokenizer.json may be missing.
        first_new: the id of the first new piece.
        pad_id: the id of a new pad token.
    """
    names = {token_id: piece.piece for token_id, piece in enumerate(proto.pieces)}
    added = dict(files.added_tokens)
    if files.tree is None:
        for token_id, piece in enumerate(proto.pieces):
            if piece.type in (UNKNOWN, CONTROL, USER_DEFINED):
                special = piece.type != USER_DEFINED
                added.setdefault(token_id, added_token(token_id, piece.piece, special=special))
        pipeline, model = _own_pipeline(proto, files.config), _own_model(proto)
        merges = [list(pair) for pair in merges_of(proto)]
    else:
        pipeline, model = {key: files.tree.get(key) for key in _PIPELINE}, files.tree["model"]
        names.update({token_id: name for name, token_id in model["vocab"].items()})
        merges = _insert_merges(model["merges"], proto, first_new)
    names.update({token_id: token["content"] for token_id, token in added.items()})
    if pad_id is not None:
        added[pad_id] = added_token(pad_id, names[pad_id])
    if pipeline["post_processor"] is None and files.config.get("add_bos_token", True):
        pipeline["post_processor"] = _begin_with(names, proto.trainer_spec.bos_id)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added[token_id] for token_id in sorted(added)],
        **pipeline,
        "model": {**model, "vocab": {names[i]: i for i in sorted(names)}, "merges": merges},
    }


def prefixes_first_only(proto: Any, config: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json of ours puts the prefix space at a text's start only, not after added tokens.

    So do folders with `legacy: false`, and models with user-defined symbols (Mistral v3 and v7): after
    those SentencePiece itself puts none. The price is transformers': a text's own first space is taken for
    the prefix.
    """
    symbols = any(piece.type == USER_DEFINED for piece in proto.pieces)
    return bool(proto.normalizer_spec.add_dummy_prefix) and not config.get("legacy", not symbols)


def _own_pipeline(proto: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    prefix = proto.normalizer_spec.add_dummy_prefix
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    steps = [{"type": "Prepend", "prepend": SPACE}, spaces] if prefix else [spaces]
    normalizer: dict[str, Any] | None = {"type": "Sequence", "normalizers": steps}
    pre_tokenizer = None
    if prefixes_first_only(proto, config):
        normalizer = None
        pre_tokenizer = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
    return {
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *([strip] if prefix else []),
            ],
        },
    }


def _own_model(proto: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": proto.pieces[proto.trainer_spec.unk_id].piece,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
    }


def merges_of(proto: Any) -> Iterator[tuple[str, str]]:
    """The merges that give SentencePiece's order: by score, then the longer left part first.

    Ties in score (a base's runs of spaces share one) grow from the left in SentencePiece; ranking longer
    left parts first does the same here.
    """
    score_of = scores_of(proto)
    found = [
        (-score, -cut, -(len(piece) - cut), piece, cut)
        for piece, score in score_of.items()
        for cut in range(1, len(piece))
        if piece[:cut] in score_of and piece[cut:] in score_of
    ]
    found.sort()
    return ((piece[:cut], piece[cut:]) for _, _, _, piece, cut in found)


def scores_of(proto: Any) -> dict[str, float]:
    """Score of every piece that merges can make."""
    return {piece.piece: piece.score for piece in proto.pieces if piece.type in (NORMAL, USER_DEFINED)}


def _insert_merges(base: list[Any], proto: Any, first_new: int) -> list[Any]:
    """The base's merges as they are, and those that the new pieces allow, each where its score puts it.

    Most make new pieces and come last. But a new piece can also be a part of an old one: SentencePiece then
    makes the old one at once, before anything that ranks below it.
    """
    score_of = scores_of(proto)
    new = {piece.piece for piece in proto.pieces[first_new:] if piece.type == NORMAL}
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in base]
    ranks = [-score_of.get(left + right, 0.0) for left, right in pairs]
    ends = {left + right: place + 1 for place, (left, right) in enumerate(pairs)}
    inserted: dict[int, list[tuple[str, str]]] = {}
    for left, right in merges_of(proto):
        joined = left + right
        if joined in new:
            place = len(pairs)
        elif left in new or right in new:
            place = ends.get(joined) or bisect.bisect_right(ranks, -score_of[joined])
        else:
            continue
        inserted.setdefault(place, []).append((left, right))
    as_text = bool(base) and isinstance(base[0], str)
    merges = []
    for place in range(len(pairs) + 1):
        for pair in [*inserted.get(place, []), *pairs[place : place + 1]]:
            merges.append(" ".join(pair) if as_text else list(pair))
    return merges


def _begin_with(names: Mapping[int, str], token_id: int) -> dict[str, Any] | None:
    """A post-processor that puts the beginning-of-sequence token first; none where the model has none."""
    if token_id < 0:
        return None
    token = names[token_id]
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = [{"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, *second],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }
