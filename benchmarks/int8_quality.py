"""What an int8 base does to the loss, beside fp32, bf16 and nf4: the base as it is, and after LoRA steps.

    python benchmarks/int8_quality.py [--quick] [--steps N] [--seeds N] [--kinds K ...] [--bases B ...]
                                      [--folder DIR] [--json FILE]

SmolLM2-135M-Instruct with the demo's vocabulary and text, as it is (tied tables) and as a copy with tables
of its own. Each part (base, kind, seed) is a file in --folder; what is there is not measured again, so that
the same command goes on after a break. All arithmetic is fp32, int8 sums are exact. bf16 is imitated:
weights, and the inputs and input gradients of the projections rounded to bf16, since most CPUs emulate it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.lib.int8_models import (  # noqa: E402
    KINDS,
    base_bits_per_byte,
    english_of_base,
    held_out_loss,
    made,
    take_step,
    training_batches,
    untied_copy,
)
from persianmind.recipe.loading import load_recipe  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.lib.demo_text import DemoText

BASES = ("demo", "untied")
RATES = {"adapters_a": 1e-3, "adapters_b": 1e-3, "embeddings": 4e-3}
WARMUP_RATIO, MIN_LR_RATIO = 0.1, 0.1
GATE = 0.005  # of the loss, relative


def main() -> None:
    """Measures what is missing, prints the tables and the verdicts."""
    options = _options()
    from benchmarks.lib.demo_text import prepare_demo_text

    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        text = prepare_demo_text(load_recipe("demo"), Path(name))
        english = english_of_base(text, Path(name))
        bases = {"demo": text.base, "untied": untied_copy(text.base, Path(name) / "untied")}
        for seed in range(options.seeds):
            for base in options.bases:
                for kind in options.kinds:
                    part = folder / f"{base}-{kind}-seed{seed}-steps{options.steps}.json"
                    if not part.exists():
                        figures = measure(bases[base], kind, seed, options.steps, text, english)
                        _write(part, {"base": base, "kind": kind, "seed": seed, **figures})
                    print(part.read_text(encoding="utf-8").strip(), flush=True)
    parts = [
        json.loads((folder / f"{base}-{kind}-seed{seed}-steps{options.steps}.json").read_text("utf-8"))
        for base in options.bases
        for kind in options.kinds
        for seed in range(options.seeds)
    ]
    rows = [summary(parts, base, kind) for base in options.bases for kind in options.kinds]
    lines = verdicts(rows)
    print("\n".join((*table(rows), *lines)))
    if options.json:
        _write(Path(options.json), {"steps": options.steps, "rows": rows, "verdicts": lines})


def _options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2 steps of one seed, fp32 and int8 alone")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--bases", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--folder", default=str(ROOT / "runs" / "bench" / "int8-quality"), metavar="DIR")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds, options.kinds = 2, 1, ["fp32", "int8"]
    return options


def measure(
    base: Path, kind: str, seed: int, steps: int, text: DemoText, english: Any
) -> dict[str, float | list[float]]:
    """Bits per byte of the base by its own tokenizer; held-out loss, nats per token, before and after."""
    from persianmind.engine.groups import parameter_groups

    model = made(base, kind, seed, text)
    figures: dict[str, Any] = {
        "base_bits_per_byte_fa": base_bits_per_byte(model, text.held_out_base),
        "base_bits_per_byte_en": base_bits_per_byte(model, english),
        "before": held_out_loss(model, text),
    }
    import torch

    from persianmind.engine.schedule import learning_rate_ratio

    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    losses, started_s = [], time.perf_counter()
    for step, batch in enumerate(training_batches(text, seed, steps)):
        ratio = learning_rate_ratio(
            step, steps, schedule="cosine", warmup_ratio=WARMUP_RATIO, floor=MIN_LR_RATIO
        )
        for group in optimizer.param_groups:
            group["lr"] = RATES[group["name"]] * ratio
        losses.append(take_step(model, optimizer, batch))
    figures |= {
        "after": held_out_loss(model, text),
        "step_s": (time.perf_counter() - started_s) / max(1, steps),
        "losses": losses,
    }
    return figures


def summary(parts: Sequence[dict[str, Any]], base: str, kind: str) -> dict[str, Any]:
    """Of all seeds of a kind."""
    mine = [one for one in parts if (one["base"], one["kind"]) == (base, kind)]
    after = [one["after"] for one in mine]
    return {
        "base": base,
        "kind": kind,
        "base_bits_per_byte_fa": mine[0]["base_bits_per_byte_fa"],
        "base_bits_per_byte_en": mine[0]["base_bits_per_byte_en"],
        "before": statistics.mean(one["before"] for one in mine),
        "after": statistics.mean(after),
        "after_by_seed": after,
        "spread": max(after) - min(after),
        "step_s": statistics.median(one["step_s"] for one in mine),
    }


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines to print."""
    form = "{:<8}{:<14}{:>12}{:>12}{:>10}{:>10}{:>10}{:>9}"
    lines = [form.format("base", "kind", "bpb fa", "bpb en", "before", "after", "spread", "s/step")]
    for one in rows:
        numbers = [
            f"{one[key]:.4f}"
            for key in ("base_bits_per_byte_fa", "base_bits_per_byte_en", "before", "after", "spread")
        ]
        lines.append(form.format(one["base"], one["kind"], *numbers, f"{one['step_s']:.2f}"))
    return lines


def verdicts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The gate for each int8 kind: bits per byte of the base, and the loss after the steps."""
    lines = []
    references = {one["base"]: one for one in rows if one["kind"] == "fp32"}
    for one in rows:
        reference = references.get(one["base"])
        if reference is None or not one["kind"].startswith("int8"):
            continue
        worst = max(
            one[key] / reference[key] - 1 for key in ("base_bits_per_byte_fa", "base_bits_per_byte_en")
        )
        behind = one["after"] / reference["after"] - 1
        allowed = max(GATE, reference["spread"] / reference["after"])
        passed = worst <= GATE and behind <= allowed
        lines.append(
            f"{one['base']} {one['kind']}: {'passed' if passed else 'FAILED'}: base bits per byte "
            f"{worst:+.2%} of fp32's (at most {GATE:+.2%}), held-out loss {behind:+.2%} (at most "
            f"{allowed:+.2%}, the larger of {GATE:.2%} and the spread of fp32's seeds, "
            f"{reference['spread']:.4f})"
        )
    return lines


def _write(file: Path, value: Any) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value) + "\n", encoding="utf-8")
    partial.replace(file)


if __name__ == "__main__":
    main()
