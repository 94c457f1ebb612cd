"""SentencePiece folders in the layouts that model families publish, from vocabularies that packages carry.

What makes a layout is copied from the families' own files: the steps before and after the merges, which added
tokens stand where and with which flags, what the config says. The merges of SentencePiece ones are those of
transformers' converter, so that nothing here is of our own making.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.vocab.helpers import mistral_model, package_folder

SPACE = "\u2581"
V2, V3, V7 = (
    package_folder("mistral_common") / "data" / f"mistral_instruct_tokenizer_{name}"
    for name in ("240216.model.v2", "240323.model.v3", "241114.model.v7")
)
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, _REPLACE]}
FIRST = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
_BACK = [
    {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def token(token_id: int, content: str, **flags: bool) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **plain, **flags}


def read_proto(model: Path) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    return proto


def template(bos: str, bos_id: int) -> dict[str, Any]:
    """A post-processor that puts the begin-of-text token first."""
    first, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, first, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }


def sentencepiece_folder(
    folder: Path,
    proto: Any,
    added: list[dict[str, Any]],
    config: dict[str, Any],
    *,
    normalizer: dict[str, Any] | None = None,
    pre_tokenizer: dict[str, Any] | None = None,
    strip: bool = True,
) -> Path:
    """tokenizer.model with the tokenizer.json that transformers' converter makes of it."""
    from transformers.convert_slow_tokenizer import generate_merges

    names = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    unk, bos_id = proto.pieces[proto.trainer_spec.unk_id].piece, proto.trainer_spec.bos_id
    folder.mkdir(parents=True)
    model = {
        "type": "BPE", "dropout": None, "unk_token": unk, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": names,
        "merges": [list(pair) for pair in generate_merges(names, [(p.piece, p.score) for p in proto.pieces])],
    }  # fmt: skip
    tree = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": template(proto.pieces[bos_id].piece, bos_id),
        "decoder": {"type": "Sequence", "decoders": [*_BACK, *([_STRIP] if strip else [])]},
        "model": model,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    decoder = {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in added}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "added_tokens_decoder": decoder}))
    return folder


_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
# transformers 5 builds LlamaTokenizer's steps anew, and not as such a tokenizer.json has them.
_AS_IT_IS = {"tokenizer_class": "PreTrainedTokenizerFast", "legacy": True}
_THREE = [token(0, "<unk>"), token(1, "<s>"), token(2, "</s>")]
_CHATML = [token(32_000, "<|im_end|>"), token(32_001, "<|im_start|>")]


def llama_2(folder: Path) -> Path:
    return sentencepiece_folder(
        folder, read_proto(mistral_model()), _THREE, {**_LLAMA, **_AS_IT_IS}, normalizer=PREPEND
    )


def chatml(folder: Path) -> Path:
    """A fine-tune of Llama 2 or Mistral v1 with two tokens more."""
    config = {**_LLAMA, **_AS_IT_IS, "eos_token": "<|im_end|>"}
    return sentencepiece_folder(
        folder, read_proto(mistral_model()), [*_THREE, *_CHATML], config, normalizer=PREPEND
    )


def chatml_listed(folder: Path) -> Path:
    """The same as older tools wrote it: the two tokens in added_tokens.json, no tokenizer.json."""
    folder.mkdir(parents=True)
    shutil.copyfile(mistral_model(), folder / "tokenizer.model")
    (folder / "added_tokens.json").write_text(json.dumps({one["content"]: one["id"] for one in _CHATML}))
    named = {"additional_special_tokens": [one["content"] for one in _CHATML]}
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    (folder / "tokenizer_config.json").write_text(json.dumps({**_LLAMA, "legacy": True}))
    return folder


def mistral_v3(folder: Path) -> Path:
    """As Mistral-7B-Instruct-v0.3: 771 tokens that are all special."""
    proto = read_proto(V3)
    added = [token(i, piece.piece) for i, piece in enumerate(proto.pieces) if piece.type in (2, 3, 4)]
    return sentencepiece_folder(folder, proto, added, {**_LLAMA, "legacy": False}, pre_tokenizer=FIRST)


def phi_3(folder: Path) -> Path:
    """Text after a special token gets no prefix, and most special tokens take the space after them away."""
    names = ["<|endoftext|>", "<|assistant|>", *(f"<|placeholder{i}|>" for i in range(1, 5))]
    names += ["<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"]
    chat = [token(32_000 + i, name, rstrip=i > 0) for i, name in enumerate(names)]
    added = [token(0, "<unk>"), token(1, "<s>"), token(2, "</s>", rstrip=True, special=False), *chat]
    config = {**_LLAMA, "eos_token": "<|endoftext|>", "legacy": False, "add_bos_token": False}
    return sentencepiece_folder(folder, read_proto(mistral_model()), added, config, pre_tokenizer=FIRST)


def gemma(folder: Path) -> Path:
    """Control tokens first, tokens for runs of lines and spaces and for HTML, and no prefix space."""
    source = read_proto(mistral_model())
    proto = type(source)()
    proto.CopyFrom(source)
    del proto.pieces[:]
    for name, kind in (("<pad>", 3), ("<eos>", 3), ("<bos>", 3), ("<unk>", 2)):
        proto.pieces.add(piece=name, score=0.0, type=kind)
    symbols = ["<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>", *("\n" * n for n in range(1, 32)),
               *(SPACE * n for n in range(2, 32)), "<table>", "</td>", "<h1>", "<strong>"]  # fmt: skip
    for name in symbols:
        proto.pieces.add(piece=name, score=0.0, type=4)
    for piece in source.pieces[3:]:
        if piece.piece not in symbols:
            proto.pieces.add().CopyFrom(piece)
    proto.normalizer_spec.add_dummy_prefix = False
    spec = proto.trainer_spec
    spec.pad_id, spec.eos_id, spec.bos_id, spec.unk_id = 0, 1, 2, 3
    spec.vocab_size = len(proto.pieces)
    turns = ("<start_of_turn>", "<end_of_turn>")
    added = [
        token(i, p.piece, special=p.type != 4 or p.piece in turns) for i, p in enumerate(proto.pieces[:73])
    ]
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>",
              "tokenizer_class": "GemmaTokenizer", "add_bos_token": True}  # fmt: skip
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    return sentencepiece_folder(
        folder, proto, added, config, normalizer=_REPLACE, pre_tokenizer=split, strip=False
    )


SENTENCEPIECE = {
    "llama-2": llama_2,
    "chatml": chatml,
    "chatml-listed": chatml_listed,
    "mistral-v3": mistral_v3,
    "phi-3": phi_3,
    "gemma": gemma,
}
BARE = {"mistral-v2": V2, "mistral-v7": V7}
