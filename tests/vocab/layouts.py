"""Tokenizer folders in the layouts that model families publish, from vocabularies that packages carry.

What makes a layout is copied from the families' own files: the steps before and after the merges, which added
tokens stand where and with which flags, what the config says. The merges of SentencePiece ones are those of
transformers' converter, so that nothing here is of our own making.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vocab.helpers import like_llama_3, mistral_model, package_folder, variant

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
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def token(token_id: int, content: str, **flags: bool) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **plain, **flags}


def read_proto(model: Path) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    return proto


def _template(bos: str, bos_id: int) -> dict[str, Any]:
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
        "post_processor": _template(proto.pieces[bos_id].piece, bos_id),
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


def _byte_level(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, level]}


def _byte_folder(
    source: Path, folder: Path, change: Callable[[dict[str, Any]], None], config: dict[str, Any]
) -> Path:
    variant(source, folder, change)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for name in ("special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    return folder


def _add_after(tree: dict[str, Any], contents: list[str], **flags: bool) -> int:
    """Added tokens with ids after the vocabulary and not in it; gives the first one's id."""
    first = 1 + max(*tree["model"]["vocab"].values(), *(one["id"] for one in tree["added_tokens"]))
    tree["added_tokens"] += [token(first + i, content, **flags) for i, content in enumerate(contents)]
    return first


def llama_3(source: Path, folder: Path) -> Path:
    names = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)),
             "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]  # fmt: skip

    def change(tree: dict[str, Any]) -> None:
        like_llama_3(tree)
        first = _add_after(tree, names)
        level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        processors = [level, _template(names[0], first)]
        tree["post_processor"] = {"type": "Sequence", "processors": processors}

    config = {"bos_token": names[0], "eos_token": names[-1], "tokenizer_class": "PreTrainedTokenizerFast",
              "clean_up_tokenization_spaces": True}  # fmt: skip
    return _byte_folder(source, folder, change, config)


def qwen_3(source: Path, folder: Path) -> Path:
    """NFC, digits one by one, and added tokens that are not special: <think>, <tool_call>."""

    def change(tree: dict[str, Any]) -> None:
        special = {one["content"] for one in tree["added_tokens"]}
        plain = [name for name in tree["model"]["vocab"] if name not in special]
        tree["model"]["vocab"] = {name: i for i, name in enumerate(plain)}
        tree["added_tokens"] = []
        _add_after_vocab = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        tree["added_tokens"] = [token(len(plain) + i, name) for i, name in enumerate(_add_after_vocab)]
        _add_after(tree, ["<tool_call>", "</tool_call>", "<think>", "</think>"], special=False)
        tree["normalizer"] = {"type": "NFC"}
        tree["pre_tokenizer"] = _byte_level(_QWEN)
        tree["post_processor"] = {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False
        }  # fmt: skip

    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer",
              "add_bos_token": False}  # fmt: skip
    return _byte_folder(source, folder, change, config)


def command_r(source: Path, folder: Path) -> Path:
    """Cohere: named tokens first, NFC, digits one by one before GPT-2's pattern, turns at the end."""
    first = ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<EOP_TOKEN>"]
    turns = ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]

    def change(tree: dict[str, Any]) -> None:
        special = {one["content"] for one in tree["added_tokens"]}
        plain = [name for name in tree["model"]["vocab"] if name not in special]
        tree["model"]["vocab"] = {name: i for i, name in enumerate([*first, *plain])}
        tree["added_tokens"] = [token(i, name) for i, name in enumerate(first)]
        _add_after(tree, turns[:2])
        _add_after(tree, turns[2:], special=False)
        tree["normalizer"] = {"type": "NFC"}
        digits = {"type": "Digits", "individual_digits": True}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        tree["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, level]}
        tree["post_processor"] = _template("<BOS_TOKEN>", 5)

    config = {"bos_token": "<BOS_TOKEN>", "eos_token": turns[1], "pad_token": "<PAD>",
              "unk_token": "<UNK>", "tokenizer_class": "CohereTokenizer"}  # fmt: skip
    return _byte_folder(source, folder, change, config)


def tekken(source: Path, folder: Path, size: int = 30_000) -> Path:
    """Mistral Nemo: 1,000 special tokens first, then the first `size` ranks of tekken itself."""
    data = json.loads((package_folder("mistral_common") / "data" / "tekken_240911.json").read_text())
    letters = _letters()
    ranks = {base64.b64decode(one["token_bytes"]): one["rank"] for one in data["vocab"][:size]}
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
    names += [f"<SPECIAL_{i}>" for i in range(len(names), 1_000)]

    def spelt(piece: bytes) -> str:
        return "".join(letters[byte] for byte in piece)

    def change(tree: dict[str, Any]) -> None:
        vocab = {name: i for i, name in enumerate(names)}
        vocab.update({spelt(piece): 1_000 + rank for piece, rank in ranks.items()})
        merges = [
            [spelt(piece[:cut]), spelt(piece[cut:])]
            for piece in sorted(ranks, key=ranks.__getitem__)
            for cut in range(1, len(piece))
            if piece[:cut] in ranks and piece[cut:] in ranks
        ]
        tree["model"].update(vocab=vocab, merges=merges, ignore_merges=True)
        tree["added_tokens"] = [token(i, name) for i, name in enumerate(names)]
        tree["normalizer"], tree["pre_tokenizer"] = None, _byte_level(data["config"]["pattern"])
        tree["post_processor"] = _template("<s>", 1)

    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
              "tokenizer_class": "PreTrainedTokenizerFast"}  # fmt: skip
    return _byte_folder(source, folder, change, config)


def _letters() -> dict[int, str]:
    """Byte-level's letter for each byte, as transformers has it."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return dict(bytes_to_unicode())


SENTENCEPIECE = {
    "llama-2": llama_2,
    "chatml": chatml,
    "chatml-listed": chatml_listed,
    "mistral-v3": mistral_v3,
    "phi-3": phi_3,
    "gemma": gemma,
}
BYTE_LEVEL = {"llama-3": llama_3, "qwen-3": qwen_3, "command-r": command_r, "tekken": tekken}
BARE = {"mistral-v2": V2, "mistral-v7": V7}


def make_layout(name: str, source: Path, folder: Path) -> Path:
    """The base folder of a layout, or the tokenizer.model that stands for it alone.

    source: a byte-level folder whose vocabulary is taken.
    """
    if name in BARE:
        return BARE[name]
    if name in SENTENCEPIECE:
        return SENTENCEPIECE[name](folder)
    return BYTE_LEVEL[name](source, folder)
