"""Small tokenizers, texts, recipes and builds that the tests of the data package share."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from persianmind.data.build.builder import ProgressCallback, build_source
from persianmind.data.build.source import SourceJob, source_job
from persianmind.data.manifest import Manifest
from persianmind.data.read.dataset import TokenDataset
from persianmind.recipe import Recipe, Stage
from persianmind.text.heldout import write_held_out

PERSIAN = (
    "کتاب خانه مردم ایران زبان فارسی دل جان آب باد خاک آتش می‌رود می‌خواهم نامه‌ها گفت شنید رفت آمد دیروز "
    "امروز فردا شیراز حافظ سعدی غزل شعر دریا کوه باران برف سفر راه دور نزدیک بزرگ کوچک روشن تاریک خوب زیبا"
)
ENGLISH = "the of water book city language mountain road small bright"
WORDS = [*PERSIAN.split(), *ENGLISH.split()]


def sentences(count: int, seed: int = 0, words: tuple[int, int] = (1, 60)) -> list[str]:
    """Random texts of `words` (from, to) words each, all different."""
    chance = random.Random(seed)
    return [" ".join([*chance.choices(WORDS, k=chance.randint(*words)), str(i)]) for i in range(count)]


def write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
    )
    return path


def make_bpe(folder: Path, vocab_size: int = 600, seed: int = 0, **config: Any) -> Path:
    """A byte-level BPE tokenizer folder like SmolLM2's: no begin-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sentences(200, seed), trainer)
    return _save(tokenizer, folder, {"eos_token": "<|endoftext|>", "pad_token": "<pad>", **config})


def make_metaspace(folder: Path) -> Path:
    """A SentencePiece-like tokenizer folder like Llama 2's: dummy prefix, byte fallback, adds <s>."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special)
    spaced = Tokenizer(models.BPE(unk_token="<unk>"))
    spaced.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    spaced.train_from_iterator(sentences(200), trainer)
    state = json.loads(tokenizer.to_str())
    state["model"] |= {key: json.loads(spaced.to_str())["model"][key] for key in ("vocab", "merges")}
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return _save(tokenizer, folder, {"bos_token": "<s>", "eos_token": "</s>"})


def _save(tokenizer: Tokenizer, folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def make_recipe(sources: dict[str, dict[str, Any]], **sections: Any) -> Recipe:
    """A recipe over these sources with small shards."""
    data = {"seq_len": 64, "sequences_per_shard": 48, "open_sequences": 8, **sections.pop("data", {})}
    stages = [{"name": "one", "sources": dict.fromkeys(sources, 1.0), "epochs": {next(iter(sources)): 1.0}}]
    return Recipe.model_validate(
        {
            "name": "test",
            "base": "none",
            "sources": sources,
            "stages": stages,
            "data": data,
            **sections,
        }
    )


def make_job(
    recipe: Recipe,
    name: str,
    tokenizer: Path,
    out: Path,
    heldout: Path | None = None,
    stage: Stage | None = None,
) -> SourceJob:
    """The build of one source, as a stage reads it, into `out`; held-out text is written beside it where
    there is any."""
    folder = out.with_name("heldout") if heldout is None else heldout
    write_held_out(recipe, folder)
    packing = recipe.packing(name, stage)
    return source_job(recipe, packing, tokenizer=tokenizer, out=out, heldout=folder)


def build(
    recipe: Recipe,
    name: str,
    tokenizer: Path,
    out: Path,
    progress: ProgressCallback | None = None,
    *,
    workers: int = 1,
) -> Manifest:
    """Builds one source into `out`."""
    return build_source(make_job(recipe, name, tokenizer, out), progress, workers=workers)


def documents_of(folder: Path) -> list[tuple[int, ...]]:
    """Every document of a folder as served, sequence by sequence."""
    dataset = TokenDataset(folder)
    found = []
    for index in range(len(dataset)):
        ids, start = dataset.sequence(index).input_ids, 0
        for length in dataset.doc_lengths(index).tolist():
            found.append(tuple(ids[start : start + length].tolist()))
            start += length
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a build (but its lock)."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}
